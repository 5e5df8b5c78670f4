// The map in three dimensions: unpacked and started when the reader asks for it.
for (const part of document.querySelectorAll(".viewer")) {
  const start = part.querySelector(".viewer-start");
  const say = (text) => { part.querySelector(".viewer-state").textContent = text; };
  const data = (kind) => part.querySelector(`script[data-volume="${kind}"]`)?.textContent.trim();
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl || typeof DecompressionStream === "undefined") {
    start.disabled = true;
    say("This browser has no WebGL 2: the three-dimensional view needs it, everything else on this page does not.");
    continue;
  }
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  const unpacked = async (text) => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  };
  const load = async () => {
    if (!globalThis.niivue?.Niivue) {
      const code = new TextDecoder().decode(await unpacked(document.getElementById("viewer-program").textContent.trim()));
      const script = document.createElement("script");
      script.textContent = code;
      document.head.append(script);
    }
    const canvas = part.querySelector("canvas");
    part.querySelector(".viewer-body").hidden = false;
    const nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1], isColorbar: false, show3Dcrosshair: true, crosshairWidth: 0.4, loadingText: "",
      dragAndDropEnabled: false, logLevel: "error",
      onLocationChange: (at) => {
        const [map, region] = at.values;
        const place = Array.from(at.mm).slice(0, 3).map((x) => x.toFixed(0)).join(", ");
        const name = region && names[Math.round(region.value)];
        say(`(${place}) mm: ${map.value > -2000 ? `${map.value.toFixed(0)} ppb` : "outside the mask"}${name ? `, ${name}` : ""}`);
      },
    });
    const names = JSON.parse(part.dataset.names);
    const colours = JSON.parse(part.dataset.colours);
    await nv.attachToCanvas(canvas);
    const image = async (kind, options) => {
      const volume = await niivue.NVImage.loadFromBase64({ base64: data(kind), name: `${kind}.nii.gz`, ...options });
      nv.addVolume(volume);
    };
    await image("map", { cal_min: -100, cal_max: 100, colormap: "gray" });
    if (data("regions")) {
      await image("regions", { opacity: 0.6 });
      const shade = (k) => colours.map((c) => c[k]);
      nv.volumes[1].setColormapLabel({ R: shade(0), G: shade(1), B: shade(2), A: colours.map((_, i) => (i ? 255 : 0)), labels: names });
    }
    nv.setInterpolation(false);
    nv.setSliceType(nv.sliceTypeMultiplanar);
    nv.setMultiplanarLayout(0);
    nv.opts.multiplanarShowRender = 1;
    nv.updateGLVolume();
    const views = { all: nv.sliceTypeMultiplanar, axial: nv.sliceTypeAxial, coronal: nv.sliceTypeCoronal, sagittal: nv.sliceTypeSagittal, render: nv.sliceTypeRender };
    const bind = (name, action) => part.querySelector(`[data-control="${name}"]`)?.addEventListener("input", (e) => action(e.target));
    bind("view", (c) => nv.setSliceType(views[c.value]));
    bind("window", (c) => { nv.volumes[0].cal_min = -c.value; nv.volumes[0].cal_max = +c.value; nv.updateGLVolume(); });
    bind("regions", (c) => nv.setOpacity(1, +c.value));
    part.dataset.ready = "yes";
  };
  start.addEventListener("click", async () => {
    start.disabled = true;
    say("Unpacking …");
    try {
      await load();
      start.hidden = true;
      say("Press on a slice to move the cross; drag the rendering to turn it. Keys: H, J, K, L turn it.");
    } catch (error) {
      say(`The viewer could not start (${error.message}).`);
      start.disabled = false;
    }
  });
}
