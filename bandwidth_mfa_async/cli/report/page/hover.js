// Says the numbers of the piece that is pointed at. The page is complete without it.
for (const figure of document.querySelectorAll("figure")) {
  const readout = figure.querySelector(".readout");
  if (!readout) continue;
  const asked = "Point at the chart for the numbers of one moment.";
  readout.textContent = asked;
  const show = (event) => {
    const point = event.target.closest?.(".point");
    figure.querySelector(".point.on")?.classList.remove("on");
    point?.classList.add("on");
    readout.textContent = point ? point.dataset.told : asked;
  };
  for (const point of figure.querySelectorAll(".point")) {
    const title = point.querySelector("title");
    point.dataset.told = title.textContent;
    title.remove();
  }
  const drawing = figure.querySelector("svg");
  drawing.addEventListener("pointermove", show);
  drawing.addEventListener("pointerdown", show);
  drawing.addEventListener("pointerleave", show);
}
