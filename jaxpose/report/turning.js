for (const figure of document.querySelectorAll("[data-turning]")) {
  const data = JSON.parse(figure.dataset.turning);
  const svg = figure.querySelector("svg"), controls = figure.querySelector(".controls");
  const paths = svg.querySelectorAll("path"), note = svg.querySelector("text");
  const [chosen, stage] = ["pose", "stage"].map(name => controls.querySelector(`[name=${name}]`));
  let { yaw, pitch } = data;

  const draw = () => {
    const pose = data.poses[chosen.value], points = [...pose.points, pose.found[stage.value]];
    const a = yaw * Math.PI / 180, b = pitch * Math.PI / 180;
    const at = ([x, y, z]) => {
      const depth = z * Math.cos(a) - x * Math.sin(a);
      const seen = [x * Math.cos(a) + z * Math.sin(a), y * Math.cos(b) - depth * Math.sin(b)];
      return seen.map(value => (data.half + pose.scale * value).toFixed(1));
    };
    data.layers.forEach(([which, lines], i) => {
      const of = points[which];
      const known = lines.filter(([from, to]) => of[from] && of[to]);
      paths[i].setAttribute("d", known.map(([from, to]) => `M${at(of[from])}L${at(of[to])}`).join(""));
    });
    note.textContent = pose.note;
  };
  const turn = (right, down) => {
    yaw = (yaw - right) % 360; // what is near follows the hand
    pitch = Math.max(-90, Math.min(90, pitch + down));
    draw();
  };

  const keys = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] };
  svg.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || !keys[event.key]) return;
    event.preventDefault();
    turn(...keys[event.key]);
  });
  svg.addEventListener("pointerdown", event => svg.setPointerCapture(event.pointerId));
  svg.addEventListener("pointermove", event => {
    if (svg.hasPointerCapture(event.pointerId)) turn(event.movementX / 2, event.movementY / 2);
  });
  for (const button of controls.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      [yaw, pitch] = button.value.split(",").map(Number);
      draw();
    });
  }
  for (const select of [chosen, stage]) select.addEventListener("change", draw);
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "application");
  controls.hidden = false;
}
