// SPDX-License-Identifier: MIT OR Apache-2.0
"use strict";
(() => {
  const of = (id) => document.getElementById(id);
  const scrub = of("scrub");
  if (scrub) {
    const places = [...of("places").querySelectorAll("rect")];
    const [readout, there, cursor] = ["readout", "there", "cursor"].map(of);
    const show = (number) => {
      const place = places[number];
      const what = place.querySelector("title").textContent;
      const link = place.parentNode.getAttribute("href");
      const middle = parseFloat(place.getAttribute("x")) + parseFloat(place.getAttribute("width")) / 2;
      cursor.setAttribute("x1", `${middle}%`);
      cursor.setAttribute("x2", `${middle}%`);
      readout.textContent = what;
      scrub.value = number;
      scrub.setAttribute("aria-valuetext", what);
      there.hidden = !link;
      if (link) there.setAttribute("href", link);
    };
    places.forEach((place, number) => place.addEventListener("pointerenter", () => show(number)));
    scrub.addEventListener("input", () => show(scrub.valueAsNumber));
    of("scrubber").hidden = false;
    show(0);
  }
  const command = of("command");
  const follow = () => {
    const position = /^#[ic]-(\d+)$/.exec(location.hash);
    of("go").hidden = !position;
    if (position) command.textContent = command.dataset.command + position[1];
  };
  addEventListener("hashchange", follow);
  follow();
})();
