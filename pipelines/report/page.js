"use strict";
(() => {
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  const button = (holder, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.append(...holder.childNodes);
    made.addEventListener("click", act);
    holder.append(made);
  };
  const minus = text => text.replace("-", "\u2212");

  for (const part of all("[data-script]")) part.hidden = false;

  // A link into a folded part opens it.
  const unfold = () => {
    const target = document.getElementById(location.hash.slice(1));
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  unfold();

  // Tables are sorted by a column; cells without a number come last either way.
  const content = cell => {
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const before = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  };
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => button(head, () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const rows = all("tbody tr", table);
      rows.sort((a, b) => before(content(a.cells[column]), content(b.cells[column]), falling ? -1 : 1));
      table.tBodies[0].append(...rows);
    }));
  }

  // The leaderboard's families are put in the order of a metric, the best first; once more, and they are as they were.
  const titles = all(".board tbody .title");
  const families = all(".board thead tr").slice(0, 1).flatMap(row => all("[data-family]", row).map(c => c.dataset.family));
  const arrange = order => {
    for (const row of all(".board tr")) {
      const cells = new Map(all("[data-family]", row).map(cell => [cell.dataset.family, cell]));
      row.append(...order.map(family => cells.get(family)));
    }
  };
  for (const title of titles) {
    const head = title.closest("th"), row = title.closest("tr"), better = row.dataset.better;
    if (!better) continue;
    button(title, () => {
      const sorted = head.hasAttribute("aria-sort");
      for (const other of titles) other.closest("th").removeAttribute("aria-sort");
      const values = new Map(all("[data-family]", row).map(cell => [cell.dataset.family, content(cell)]));
      const sign = better === "lower" ? 1 : -1;
      const order = sorted ? families : [...families].sort((a, b) => before(values.get(a), values.get(b), sign));
      if (!sorted) head.setAttribute("aria-sort", better === "lower" ? "ascending" : "descending");
      arrange(order);
    });
  }

  // The explorer: what a slider asks for was decoded beforehand.
  const frame = (canvas, sprite, rows, steps, row, step) => {
    const width = sprite.naturalWidth / steps, height = sprite.naturalHeight / rows;
    if (!width) return;
    canvas.width = Math.max(Math.round(width), 1);
    canvas.height = Math.max(Math.round(height), 1);
    canvas.getContext("2d").drawImage(
      sprite, step * width, row * height, width, height, 0, 0, canvas.width, canvas.height);
  };
  const cells = (body, header, rows, from, step) => {
    body.replaceChildren();
    header.forEach((name, column) => {
      if (rows.every(row => row[column] === rows[from][column])) return;
      const line = body.insertRow(), head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      line.append(head);
      line.insertCell().textContent = rows[from][column] || "–";
      const now = line.insertCell(), text = rows[step][column] || "–";
      if (rows[step][column] === rows[from][column]) now.textContent = text;
      else now.append(Object.assign(document.createElement("mark"), { textContent: text }));
    });
    if (!body.rows.length) body.insertRow().insertCell().textContent = "Nothing changes along it.";
  };
  const boxes = all(".explored");
  for (const box of boxes) {
    const data = JSON.parse(box.dataset.explorer), sprites = all(".sprite", box);
    const part = role => box.querySelector(`[data-role="${role}"]`);
    const example = part("example"), from = part("from"), to = part("to"), way = part("way");
    const directions = all(".direction", box);
    const draw = (figure, index, rows, row, step, start) => {
      if (data.header) cells(figure.querySelector("tbody"), data.header, (index < 0 ? data.ways : data.cells[index])[row], start, step);
      else frame(figure.querySelector("canvas"), sprites.at(index), rows, data.places.length, row, step);
    };
    const middle = data.places ? (data.places.length - 1) / 2 : 0;
    const turn = (figure, index) => {
      const slider = figure.querySelector("input"), step = Number(slider.value), place = data.places[step];
      const said = `${minus(place.toFixed(1))} standard deviations`;
      figure.querySelector("output").textContent = said;
      slider.setAttribute("aria-valuetext", said);
      draw(figure, index, data.examples, Number(example.value), step, middle);
    };
    const walk = () => {
      const one = Number(from.value), other = Number(to.value), figure = way.closest("figure");
      const last = data.places.length - 1, step = Number(way.value);
      const said = `${Math.round(100 * step / last)}\u202f%`;
      figure.querySelector("output").textContent = said;
      way.setAttribute("aria-valuetext", `${said} of the way`);
      const row = data.pairs.findIndex(pair => pair.includes(one) && pair.includes(other) && one !== other);
      way.disabled = row < 0;
      if (row < 0) return draw(figure, 0, data.examples, one, middle, middle);
      const back = data.pairs[row][0] !== one;
      draw(figure, -1, data.pairs.length, row, back ? last - step : step, back ? last : 0);
    };
    const seen = part("progress");
    const grow = () => {
      const shown = document.getElementById(`${seen.dataset.frames}-${Number(seen.value) + 1}`);
      const picture = part("grid");
      picture.src = shown.src;
      picture.alt = shown.alt;
      const said = `${seen.dataset.labels.split("|")[Number(seen.value)]} examples`;
      seen.closest("figure").querySelector("output").textContent = said;
      seen.setAttribute("aria-valuetext", said);
    };
    const refresh = () => {
      if (example) directions.forEach(turn);
      if (way) walk();
      if (seen) grow();
    };
    directions.forEach((figure, index) => figure.querySelector("input").addEventListener("input", () => turn(figure, index)));
    if (example) example.addEventListener("change", refresh);
    if (way) for (const control of [from, to, way]) control.addEventListener("input", walk);
    if (seen) seen.addEventListener("input", grow);
    Promise.all(sprites.map(sprite => sprite.decode())).then(refresh, refresh);
  }
  const chosen = document.getElementById("explored-family");
  if (chosen) {
    const show = () => boxes.forEach(box => { box.hidden = box.dataset.family !== chosen.value; });
    chosen.addEventListener("input", show);
    show();
  }
})();
