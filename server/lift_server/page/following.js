// The page follows an answer as it grows. In: what grows, and what lies over the page's lower edge. Out: the page is
// scrolled so that its end stays in sight, unless the reader has scrolled away from it.

export function follow(growing, over) {
  let last = 0;
  new ResizeObserver(() => {
    const { bottom, height } = growing.getBoundingClientRect();
    const wasInSight = bottom - (height - last) <= innerHeight;
    const hidden = bottom + over.offsetHeight + 28 - innerHeight;
    if (height > last && (wasInSight || last === 0) && hidden > 0) scrollBy(0, hidden);
    last = height;
  }).observe(growing);
}
