// Every chart of the page. Colours are variables of the style sheet, so that dark, light and paper need no redrawing.
for (const [id, spec] of Object.entries(JSON.parse(document.getElementById("charts").textContent))) {
  const place = document.getElementById(id);
  vegaEmbed(place, spec, { actions: false, renderer: "svg", tooltip: { theme: "custom" } }).then(
    () => { place.dataset.state = "drawn"; },
    (error) => { place.dataset.state = "failed"; console.error(error); },
  );
}
