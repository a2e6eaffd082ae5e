// Mouse, touch and keys of the viewer. The server decides what they do; here they are only collected.
(() => {
  "use strict";
  const trame = () => window.trame;
  const send = (name, ...values) => trame() && trame().trigger(name, values);
  if (location.search.includes("token=")) history.replaceState(null, "", "/index.html"); // the cookie has it now
  document.documentElement.lang = "en";

  // -- pointer: movements are added up until the server has done the last ones, so that none lag behind the hand ----
  const waiting = new Map(); // view and kind -> values
  let asked = false, busy = false;
  const flush = () => {
    asked = false;
    if (busy || !trame()) return;
    const sent = [...waiting].map(([key, values]) => send("pointer", ...key.split(" "), ...values));
    waiting.clear();
    busy = true;
    Promise.allSettled(sent).then(() => { busy = false; if (waiting.size) flush(); });
  };
  const move = (view, kind, ...values) => {
    const key = `${view} ${kind}`, old = waiting.get(key);
    waiting.set(key, !old ? values : kind === "zoom" ? [old[0] * values[0]] : values.map((v, i) => v + old[i]));
    if (!asked) { asked = true; requestAnimationFrame(flush); }
  };
  const ratio = () => window.devicePixelRatio || 1;
  const pixel = (glass, e) => { const box = glass.getBoundingClientRect(); return [(e.clientX - box.left) * ratio(), (box.bottom - e.clientY) * ratio()]; };
  const glassOf = (e) => e.target instanceof Element ? e.target.closest(".glass") : null;
  const fingers = new Map();
  let drag = null, turned = 0;

  document.addEventListener("wheel", (e) => {
    const glass = glassOf(e);
    if (!glass) return;
    e.preventDefault();
    if (e.ctrlKey) return move(glass.dataset.view, "zoom", Math.exp(Math.max(-1, Math.min(1, e.deltaY / 300))));
    turned += e.deltaMode ? e.deltaY * 40 : e.deltaY;
    const steps = Math.trunc(turned / 40) || (Math.abs(turned) >= 4 && !e.deltaMode && Math.abs(e.deltaY) >= 50 ? Math.sign(turned) : 0);
    if (steps) { turned = 0; move(glass.dataset.view, "scroll", -Math.max(-3, Math.min(3, Math.round(steps / 3) || Math.sign(steps)))); }
  }, { passive: false });
  document.addEventListener("pointerdown", (e) => {
    const glass = glassOf(e);
    if (!glass) return;
    fingers.set(e.pointerId, [e.clientX, e.clientY]);
    glass.setPointerCapture(e.pointerId);
    drag = { glass, view: glass.dataset.view, x: e.clientX, y: e.clientY, moved: false, rest: 0, kind: e.button === 2 ? "zoom" : e.button === 1 || e.shiftKey ? "pan" : "scroll" };
  });
  document.addEventListener("pointermove", (e) => {
    if (!drag || !fingers.has(e.pointerId)) return;
    const [x, y] = fingers.get(e.pointerId), dx = e.clientX - x, dy = e.clientY - y;
    if (!drag.moved && Math.hypot(e.clientX - drag.x, e.clientY - drag.y) < 4) return;
    drag.moved = true;
    if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== e.pointerId)[1];
      const before = Math.hypot(x - other[0], y - other[1]), after = Math.hypot(e.clientX - other[0], e.clientY - other[1]);
      if (before > 0 && after > 0) move(drag.view, "zoom", before / after);
      move(drag.view, "pan", (dx / 2) * ratio(), (dy / 2) * ratio());
    } else if (drag.kind === "pan") move(drag.view, "pan", dx * ratio(), dy * ratio());
    else if (drag.kind === "zoom") move(drag.view, "zoom", Math.exp(dy / 150));
    else { drag.rest -= dy / 6; const steps = Math.trunc(drag.rest); if (steps) { drag.rest -= steps; move(drag.view, "scroll", steps); } }
    fingers.set(e.pointerId, [e.clientX, e.clientY]);
  });
  const up = (e) => {
    if (fingers.delete(e.pointerId) && drag && !drag.moved && e.type === "pointerup" && drag.kind === "scroll" && !fingers.size) send("pointer", drag.view, "point", ...pixel(drag.glass, e));
    if (!fingers.size) drag = null;
  };
  document.addEventListener("pointerup", up);
  document.addEventListener("pointercancel", up);
  document.addEventListener("contextmenu", (e) => glassOf(e) && e.preventDefault());
  document.addEventListener("auxclick", (e) => glassOf(e) && e.preventDefault());

  // -- keys -----------------------------------------------------------------------------------
  let flickering = false;
  const flicker = (on) => { if (on !== flickering) { flickering = on; send("setting", "flicker", on); } };
  const typing = (e) => e.target instanceof Element && e.target.matches("input[type=text], input[type=number], textarea, select");
  const state = (name) => trame() && trame().state.get(name);
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || typing(e)) return;
    const key = e.key.toLowerCase(), help = document.getElementById("help");
    if (help && help.open) return;
    if (key === "?") { if (help) help.showModal(); return; }
    if (key === state("flicker_key")) { if (!e.repeat) flicker(true); return; }
    const action = (state("keys") || {})[key];
    if (action) { e.preventDefault(); send("key", action); return; }
    const glass = e.target instanceof Element && e.target.closest(".glass");
    if (!glass) return;
    const steps = { ArrowUp: 1, ArrowDown: -1, ArrowRight: 1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: 1000, End: -1000 }[e.key];
    if (steps) { e.preventDefault(); move(glass.dataset.view, "scroll", steps); }
    if (e.key === "Enter") send("pointer", glass.dataset.view, "point", (glass.clientWidth / 2) * ratio(), (glass.clientHeight / 2) * ratio());
  });
  document.addEventListener("keyup", (e) => { if (e.key.toLowerCase() === state("flicker_key")) flicker(false); });
  window.addEventListener("blur", () => flicker(false));
  document.addEventListener("pointerdown", (e) => e.target instanceof Element && e.target.closest("[data-flicker]") && flicker(true));
  for (const kind of ["pointerup", "pointercancel"]) document.addEventListener(kind, () => flicker(false));

  // -- sliders: what the server says must not undo what the reader does meanwhile ----------------
  document.addEventListener("input", (e) => { if (e.target.dataset.setting) e.target.touched = Date.now(); }, true);
  setInterval(() => {
    const settings = state("settings") || {};
    for (const slider of document.querySelectorAll("[data-setting]")) {
      const value = String(settings[slider.dataset.setting]);
      if (Date.now() - (slider.touched || 0) > 500 && slider.value !== value) slider.value = value;
    }
  }, 100);

  // -- reading session: a hidden page is a pause ------------------------------------------------
  document.addEventListener("visibilitychange", () => { if (document.hidden && (state("study") || {}).state) send("pause", "page hidden"); });

  // pictures are described by their pane
  new MutationObserver(() => {
    for (const picture of document.querySelectorAll(".picture[tabindex='0']")) picture.tabIndex = -1;
    for (const img of document.querySelectorAll(".picture img:not([alt])")) img.alt = "";
  })
    .observe(document.documentElement, { childList: true, subtree: true });
})();
