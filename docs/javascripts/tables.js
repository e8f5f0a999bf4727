// Tables that are wider than the page scroll; the theme's frame around them cannot be reached with the keyboard.
function makeFocusable() {
  for (const frame of document.querySelectorAll(".md-typeset__scrollwrap")) {
    frame.toggleAttribute("tabindex", frame.scrollWidth > frame.clientWidth);
    if (frame.hasAttribute("tabindex")) frame.tabIndex = 0;
  }
}

new MutationObserver(makeFocusable).observe(document.body, { childList: true, subtree: true });
window.addEventListener("resize", makeFocusable);
makeFocusable();
