"""Find the T1-weighted image that goes with a map, and what a derivative has computed of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .index import Dataset, Image
from .problems import DataError, ExitCode
from .runs import Anatomy, Source

#: What ``--t1w`` may be.
T1W_USE = ("auto", "required", "ignore")

#: What transforms call the space of a map.
MAP_SPACE = "MEGRE"
#: How a sidecar says that a map goes to the template by way of a T1-weighted image.
THROUGH_T1W = "the T1-weighted image"


@dataclass(frozen=True)
class _Candidate:
    """A T1-weighted image of a dataset."""

    image: Image
    dataset: Dataset


def find_anatomy(
    run: Image,
    raw: Dataset,
    derivatives: Sequence[Dataset],
    *,
    template: str | None = None,
    use: str = "auto",
) -> Anatomy:
    """T1-weighted image of a run, with its mask and transforms as far as derivatives have them.

    An image that a derivative has preprocessed goes before that of the raw dataset: its masks and
    transforms belong to it. One of the same session goes before others.

    Parameters
    ----------
    run : Image
        First echo or map of the run.
    raw : Dataset
        BIDS_DIR.
    derivatives : sequence of Dataset
        In the order in which they were given.
    template : str, optional
        Name of the template whose transforms are wanted.
    use : {'auto', 'required', 'ignore'}
        ``auto`` takes a T1-weighted image where there is one.

    Raises
    ------
    DataError
        With a template: several images fit, or one cannot be read. There is none and one is
        required.
    """
    direct = _direct(run, derivatives, template)
    if use == "ignore":
        return direct
    try:
        found = _found(run, raw, derivatives, template, use)
        # What has been computed goes first: the map's own way to the template, where there is no
        # other that is complete.
        return direct if direct.to_template and not found.to_template else found
    except DataError:
        if template is None and use != "required":
            # Nothing is to be registered: what is odd about an image that is not needed is no harm.
            return Anatomy()
        raise


def _direct(run: Image, derivatives: Sequence[Dataset], template: str | None) -> Anatomy:
    """Transforms that lead from the map to the template without an image between."""
    for dataset in derivatives:
        mine = [x for x in dataset.files(run.name.entities["sub"], "xfm") if x.key == run.key]
        forward = _leading(mine, MAP_SPACE, template)
        inverse = _leading(mine, template, MAP_SPACE)
        if forward and inverse:
            return Anatomy(to_template=forward.source, from_template=inverse.source)
    return Anatomy()


def magnitudes_of(
    run: Image, raw: Dataset, derivatives: Sequence[Dataset], owner: Dataset
) -> tuple[Source, ...]:
    """Magnitudes on the grid of a map that somebody else made: what can be registered of it.

    Parameters
    ----------
    run : Image
        The map.
    raw : Dataset
        BIDS_DIR.
    derivatives : sequence of Dataset
        In the order in which they were given.
    owner : Dataset
        The one that has the map; its images go before those of others.

    Returns
    -------
    tuple of Source
        Echoes of one acquisition (``MEGRE`` or ``T2starw``, not the phase) whose grid and entities
        are those of the map, in the order of the echoes; empty where there is none.

    Raises
    ------
    DataError
        A magnitude of the map's entities whose header cannot be believed.
    """
    subject, key = run.name.entities["sub"], run.key
    for dataset in dict.fromkeys([owner, raw, *derivatives]):
        found = [
            echo
            for image in dataset.files(subject, "megre")
            if image.name.entities.get("part", "mag") == "mag" and image.key.items() <= key.items()
            # Echoes may be in one file: its volumes have the grid of the map, and not the file.
            for echo in image.echoes()
            if echo.source.grid.same_as(run.source.grid)
        ]
        if not found:
            continue
        most = max(len(image.key) for image in found)
        kinds = {i.name.suffix for i in found if len(i.key) == most}
        wanted = "MEGRE" if "MEGRE" in kinds else "T2starw"
        alike = [i for i in found if len(i.key) == most and i.name.suffix == wanted]
        return tuple(i.source for i in sorted(alike, key=_echo))
    return ()


def _echo(image: Image) -> tuple[int, str]:
    echo = image.name.entities.get("echo", "")
    return (int(echo) if echo.isascii() and echo.isdigit() else 0, image.source.name)


def _found(
    run: Image, raw: Dataset, derivatives: Sequence[Dataset], template: str | None, use: str
) -> Anatomy:
    subject, session = run.name.entities["sub"], run.name.entities.get("ses")
    found = _t1w(subject, session, raw, derivatives)
    if found is None:
        if use == "required":
            raise DataError(
                f"{run.name.prefix} has no T1-weighted image, and --t1w required was asked for.",
                ExitCode.MISSING_INPUT,
            )
        return Anatomy()
    t1w, its_session = found.image.source, found.image.name.entities.get("ses")
    # Read here, so that a damaged header is told here.
    grid = t1w.grid
    preprocessed = found.dataset.is_derivative
    # Others know nothing of the space that a derivative has made of several images.
    owners = [found.dataset] if preprocessed else list(derivatives)
    anatomy = Anatomy(t1w=t1w, preprocessed=preprocessed)
    for dataset in owners:
        masks = [
            m.source
            for m in _of_session(dataset.files(subject, "mask"), its_session)
            if m.source.grid.same_as(grid) and not m.source.grid.same_as(run.source.grid)
        ]
        if masks and anatomy.mask is None:
            anatomy = replace(anatomy, mask=masks[0])
        transforms = _of_session(dataset.files(subject, "xfm"), its_session)
        forward = _leading(transforms, "T1w", template)
        inverse = _leading(transforms, template, "T1w")
        # A composite transform cannot be turned round: it takes both.
        if forward and inverse and anatomy.to_template is None:
            anatomy = replace(anatomy, to_template=forward.source, from_template=inverse.source)
    for dataset in derivatives:
        mine = [x for x in dataset.files(subject, "xfm") if x.key == run.key]
        own = _leading(mine, MAP_SPACE, "T1w")
        if own and anatomy.map_to_t1w is None:
            anatomy = replace(anatomy, map_to_t1w=own.source)
    return anatomy


def _t1w(
    subject: str, session: str | None, raw: Dataset, derivatives: Sequence[Dataset]
) -> _Candidate | None:
    datasets = [d for d in derivatives if d is not raw]
    for dataset in [*datasets, raw]:
        wanted = "preproc" if dataset.is_derivative else None
        images = [
            image
            for image in dataset.files(subject, "t1w")
            if image.name.entities.get("desc") == wanted
        ]
        fitting = _of_session(images, session)
        if len(fitting) > 1:
            names = ", ".join(image.source.name for image in fitting)
            raise DataError(
                f"several T1-weighted images fit ({names}); choose one with --bids-filter-file "
                '({"t1w": ...}), or leave them out with --t1w ignore.'
            )
        if fitting:
            return _Candidate(fitting[0], dataset)
    return None


def _of_session(images: Iterable[Image], session: str | None) -> list[Image]:
    """Images of a session; those without a session else, and those of any other at last."""
    images = list(images)
    for wanted in (session, None):
        same = [image for image in images if image.name.entities.get("ses") == wanted]
        if same:
            return same
    return images


def _leading(transforms: Iterable[Image], origin: str | None, target: str | None) -> Image | None:
    """Transform that brings images from one space to another."""
    for transform in transforms:
        entities = transform.name.entities
        if entities.get("from") == origin and entities.get("to") == target and origin and target:
            return transform
    return None


def lies_on_t1w(source: Source, run: Source, anatomy: Anatomy) -> bool:
    """Whether an image lies on the grid of the T1-weighted image, and not on that of the map."""
    t1w = anatomy.t1w
    return t1w is not None and source.grid.same_as(t1w.grid) and not source.grid.same_as(run.grid)
