const all = (selector) => document.querySelectorAll(selector);

element.addEventListener("click", (event) => {
  const pressed = event.target.closest("[data-select]");
  if (pressed) trigger("select", { value: pressed.dataset.select });
});

// The photo's garments show which of them the results are for.
const mark = () => {
  const picked = element.querySelector("[data-picked]")?.dataset.picked;
  if (picked === undefined) return;
  for (const garment of all("[data-garment]")) {
    const on = garment.dataset.garment === picked;
    garment.classList.toggle("fr-picked", on);
    if (garment.hasAttribute("aria-pressed")) garment.setAttribute("aria-pressed", String(on));
  }
};
watch("value", () => {
  mark();
  const heading = element.querySelector(".fr-heading");
  if (heading && heading.getBoundingClientRect().top > innerHeight * 0.8) heading.scrollIntoView({ block: "start" });
});

if (element.querySelector("input[type=file]")) {
  const say = (words) => {
    element.querySelector(".fr-target span").textContent = words;
  };
  const send = (file, name) => {
    if (!file) return;
    if (file.size > props.most) {
      say(`This photo has ${(file.size / 1e6).toFixed(1)} MB; up to ${(props.most / 1e6).toFixed(1)} MB are read.`);
      return;
    }
    const reader = new FileReader();
    reader.onload = () => trigger("upload", { content: reader.result, name: name || file.name || "photo" });
    reader.readAsDataURL(file);
  };
  element.addEventListener("change", (event) => {
    if (event.target.type !== "file") return;
    send(event.target.files[0]);
    event.target.value = "";
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    element.addEventListener(kind, (event) => {
      event.preventDefault();
      const over = kind === "dragenter" || kind === "dragover";
      element.querySelector(".fr-drop").classList.toggle("fr-over", over);
      if (kind === "drop") send(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    send(file, "pasted photo");
  });

  // Browsers have a camera for pages of this machine and of https only.
  const showCamera = () => {
    element.querySelector("[data-camera]").hidden = !navigator.mediaDevices?.getUserMedia;
  };
  showCamera();
  watch("value", showCamera);
  element.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-camera]");
    if (!button) return;
    const video = element.querySelector("video");
    if (!video.srcObject) {
      try {
        video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      } catch {
        say("There is no camera, or this page may not use it.");
        return;
      }
      video.hidden = false;
      await video.play();
      button.textContent = "Take the photo";
      return;
    }
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    video.srcObject.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    video.hidden = true;
    button.textContent = "Use the camera";
    canvas.toBlob((blob) => send(blob, "photo of the camera"), "image/jpeg", 0.95);
  });
}
