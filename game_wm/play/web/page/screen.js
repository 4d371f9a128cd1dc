// The screen: it stays on while somebody plays, and is full when he likes. The last script: all others are there.
let lock = null, refused = !("wakeLock" in navigator);  // it is for secure pages alone (HTTPS, or this machine)

async function stayAwake(want) {
  if (refused || document.hidden || (lock !== null) === want) return;
  if (!want) {
    const old = lock;
    lock = null;
    await old.release();
    return;
  }
  lock = {release() {}};  // one question at a time
  try {
    lock = await navigator.wakeLock.request("screen");
    lock.addEventListener("release", () => { lock = null; });
  } catch {
    lock = null;
    refused = true;  // a phone that saves its battery: not to be asked again
  }
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen(); else document.documentElement.requestFullscreen();
}

document.querySelector("[data-command=full_screen]").hidden = !document.fullscreenEnabled;  // iPhones have none
new ResizeObserver(fit).observe(document.querySelector("main"));
if (!offered()) connect();
else {
  addEventListener("hashchange", route);
  showGallery().then(() => location.hash && route());
}
