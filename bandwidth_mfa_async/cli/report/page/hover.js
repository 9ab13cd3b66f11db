// Shows the numbers of the point under the pointer. The page is complete without this script.
for (const figure of document.querySelectorAll("figure")) {
  const readout = figure.querySelector(".readout");
  if (!readout) continue;
  const hint = "Point at the chart for the numbers of one moment.";
  readout.textContent = hint;
  const show = (event) => {
    const point = event.target.closest?.(".point");
    figure.querySelector(".point.on")?.classList.remove("on");
    point?.classList.add("on");
    readout.textContent = point ? point.dataset.numbers : hint;
  };
  for (const point of figure.querySelectorAll(".point")) {
    const title = point.querySelector("title");
    point.dataset.numbers = title.textContent;
    title.remove();
  }
  const drawing = figure.querySelector("svg");
  drawing.addEventListener("pointermove", show);
  drawing.addEventListener("pointerdown", show);
  drawing.addEventListener("pointerleave", show);
}
