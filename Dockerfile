# qsmref as a container: a folder of Python packages, built in one stage and copied into a clean one.
#
#   docker build --build-arg VERSION=$(python3 -c 'import qsmref; print(qsmref.__version__)') -t qsmref .
#   docker run --rm -u $(id -u):$(id -g) --read-only --network none \
#       -v BIDS:/data:ro -v OUT:/out -v WORK:/work qsmref /data /out participant
#
# docs/container.md says more: arguments, Apptainer, what is in the image and how it is tested.
FROM python:3.11-slim-bookworm AS build

# More arguments of pip, such as an index of your own.
ARG PIP_ARGUMENTS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
RUN python3 -m venv /opt/qsmref
ENV PATH=/opt/qsmref/bin:$PATH

# Dependencies first: they stay in the builder's cache while the code changes.
WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY qsmref/__init__.py qsmref/
RUN pip install $PIP_ARGUMENTS . 'bids-validator-deno >= 2.0'
COPY qsmref qsmref
COPY bids_app bids_app
ARG VERSION=""
RUN pip install $PIP_ARGUMENTS --no-deps --force-reinstall . \
    && installed=$(cd / && python -c 'import qsmref; print(qsmref.__version__)') \
    && if [ -n "$VERSION" ] && [ "$VERSION" != "$installed" ]; then \
           echo "the label would say $VERSION, the package says $installed" >&2; exit 1; fi

# Templates and atlases of TemplateFlow, for runs without a network; for example
# --build-arg TEMPLATES="MNI152NLin2009cAsym MNI152NLin6Asym". Their licences are in each folder.
ARG TEMPLATES=""
ENV TEMPLATEFLOW_HOME=/opt/qsmref/templateflow
RUN mkdir -p "$TEMPLATEFLOW_HOME" && if [ -n "$TEMPLATES" ]; then \
        pip install $PIP_ARGUMENTS templateflow && for template in $TEMPLATES; do \
            python -c 'import sys; from templateflow import api; \
name = sys.argv[1]; found = [*api.get(name, resolution=1), *api.get(name, desc="brain")]; \
sys.exit(f"TemplateFlow has nothing called {name}" if not found else 0)' "$template" || exit 1; \
        done; fi

# The subcortical atlas that --atlas CIT168 names, for runs without a network: --build-arg
# ATLASES=CIT168. It is in the space of MNI152NLin2009cAsym.
ARG ATLASES=""
ENV NILEARN_DATA=/opt/qsmref/nilearn
RUN mkdir -p "$NILEARN_DATA" && for atlas in $ATLASES; do \
        [ "$atlas" = CIT168 ] || { echo "there is no atlas $atlas to fetch" >&2; exit 1; }; \
        python -c 'from qsmref.atlases import fetch_cit168; fetch_cit168("/tmp/atlas")' \
            && rm -rf /tmp/atlas || exit 1; \
    done

# FSL's BET, FLIRT and FAST, for --engine fsl. FSL is free for non-commercial use only: by setting
# both arguments you say that you have read https://fsl.fmrib.ox.ac.uk/fsl/docs/#/license and keep it.
ARG FSL=""
ARG FSL_LICENCE_ACCEPTED=""
ARG MAMBA=https://github.com/mamba-org/micromamba-releases/releases/latest/download/micromamba-linux-64
RUN mkdir -p /opt/fsl && if [ -n "$FSL" ]; then \
        [ "$FSL_LICENCE_ACCEPTED" = yes ] || { echo "FSL needs FSL_LICENCE_ACCEPTED=yes" >&2; exit 1; }; \
        python -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' \
            "$MAMBA" /tmp/micromamba && chmod +x /tmp/micromamba \
        && /tmp/micromamba create --yes --root-prefix /tmp/mamba --prefix /opt/fsl \
            --channel https://fsl.fmrib.ox.ac.uk/fsldownloads/fslconda/public/ \
            --channel conda-forge fsl-bet2 fsl-flirt fsl-fast4 fsl-avwutils \
        && rm -rf /tmp/mamba /tmp/micromamba; fi

# Tests of libraries go; byte code is made once, since nothing can be written later. Whole seconds:
# layers of images know no others, and numba compares the time of a source with that in its cache.
RUN find /opt/qsmref/lib -type d -name tests -prune -exec rm -rf {} + \
    && find /opt/qsmref -exec touch -h -d '2020-01-01 00:00:00 UTC' {} + \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/qsmref/lib > /dev/null || :

# A small head through both chains of methods: the image is seen to work, and compiled loops and
# matplotlib's list of fonts are kept. They serve processors of this kind; others compile anew.
ENV NUMBA_CACHE_DIR=/opt/qsmref/cache/numba MPLCONFIGDIR=/opt/qsmref/cache/matplotlib
RUN cd /tmp && qsmref-phantom dataset bids --matrix 32 36 32 --voxel-size 6 6 6 > /dev/null \
    && for preset in default thesis; do \
        qsmref bids "$preset" participant -d truth=bids/derivatives/truth --preset "$preset" \
            --sloppy --nprocs 1 --work-dir "work-$preset" > log.txt 2>&1 || { cat log.txt; exit 1; }; \
    done && rm -rf /tmp/*

FROM python:3.11-slim-bookworm
ARG VERSION=""
ARG FSL=""
LABEL org.opencontainers.image.title="qsmref" \
      org.opencontainers.image.description="Quantitative susceptibility maps whose results are differences between regions" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/container.md"
COPY --from=build /opt /opt
# Any user may run it: --user with a number that no password file knows is the usual way.
RUN mkdir -m 1777 /work /out /data
ENV PATH=/opt/qsmref/bin:$PATH:/opt/fsl/bin \
    FSLDIR=${FSL:+/opt/fsl} \
    FSLOUTPUTTYPE=NIFTI_GZ \
    HOME=/work \
    LANG=C.UTF-8 \
    NILEARN_DATA=/opt/qsmref/nilearn \
    NIPYPE_NO_ET=1 \
    PYTHONNOUSERSITE=1 \
    QSMREF_CACHE=/opt/qsmref/cache \
    TEMPLATEFLOW_AUTOUPDATE=off \
    TEMPLATEFLOW_HOME=/opt/qsmref/templateflow
# --work-dir is "work" by default: /work from here.
WORKDIR /
USER 1000:1000
ENTRYPOINT ["qsmref"]
