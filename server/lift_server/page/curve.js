// The loss as a line. In: points (step, loss) in order. Out: a figure: an image whose text says what the line shows,
// and the same in words below it. It is drawn from zero, so that a small fall looks small.

import { el, newId, svg } from "./elements.js";

const WIDTH = 400;
const HEIGHT = 100;
const PAD = 4; // half of the line's end

// Null where one point is no line yet.
export function curve(points) {
  if (points.length < 2) return null;
  const id = newId("curve");
  const last = points.at(-1);
  const across = (step) => PAD + ((WIDTH - 2 * PAD) * (step - points[0].step)) / (last.step - points[0].step);
  const top = Math.max(...points.map((point) => point.loss)) || 1;
  const down = (loss) => PAD + (HEIGHT - 2 * PAD) * (1 - loss / top);
  const line = points.map(({ step, loss }) => `${across(step).toFixed(1)},${down(loss).toFixed(1)}`).join(" ");
  const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" };
  const image = svg("svg", { class: "curve", role: "img", "aria-labelledby": id, ...box },
    svg("path", { class: "floor", d: `M0 ${HEIGHT - PAD}H${WIDTH}` }),
    svg("polyline", { points: line }));
  return el("figure", { class: "loss" }, image, el("figcaption", { class: "hint", id }, inWords(points)));
}

function inWords(points) {
  const first = points[0];
  const last = points.at(-1);
  const lowest = points.reduce((one, other) => (other.loss < one.loss ? other : one));
  const low = lowest === last ? "its lowest" : `the lowest was ${number(lowest.loss)} at step ${lowest.step}`;
  return `Loss: ${number(first.loss)} at step ${first.step}, ${number(last.loss)} at step ${last.step}, ${low}.`;
}

function number(loss) {
  return loss.toFixed(2);
}
