// The line to the player: pictures and words that come by it, and how it is opened again when it breaks.
const PATIENCE = 1500, BROKEN = 15000;  // milliseconds without a picture until it waits, and until the line is given up
const LONGEST = 15;  // seconds between two tries
const AWAY = 4000, ELSEWHERE = 4001, ENDED = 1001, REFUSED = 1008;  // codes of server.py and of WebSockets
let line, lost = true, tries = 0, retry = 0, resume = null;  // `resume`: what a key does while there is no line
let last = 0, still = true;  // when the last picture came; whether none is to come
let inOrder = Promise.resolve();

const send = message => { if (line && line.readyState === WebSocket.OPEN) line.send(JSON.stringify(message)); };

function connect() {
  clearTimeout(retry);
  const play = address("/play", {ticket: sessionStorage.getItem(ticketName())});
  const own = line = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${play}`);
  let full = null, failed = "";
  own.binaryType = "arraybuffer";
  own.onmessage = event => {
    if (own !== line) return;
    if (typeof event.data !== "string") {
      inOrder = inOrder.then(() => own === line && show(event.data));
      return;
    }
    const what = JSON.parse(event.data);
    if (what.loading !== undefined) return loaded(what.loading, what.done);
    if (what.failed || (what.full && offered())) {
      failed = what.failed || what.full;
      return;
    }
    if (what.full) {
      full = what;
      document.title = "full – game_wm";
      notice(what.full);
      return;
    }
    sessionStorage.setItem(ticketName(), what.ticket);
    loaded("");
    document.body.classList.remove("choosing");
    lost = still = false;
    tries = 0;
    last = performance.now();
    begin(what);
    badge("line", "");
    if (document.hidden) send({hidden: true});
  };
  own.onclose = event => {
    if (own !== line) return;
    if (failed) unplayable(failed);
    else if (choosing()) unplayable("The connection is lost: choose again.");
    else if (full) later(full.again);
    else closed(event.code);
  };
}

function later(seconds) {
  lost = true;
  resume = connect;
  clearTimeout(retry);
  retry = setTimeout(connect, 1000 * seconds);
}

function closed(code) {
  letGo();
  lost = true;
  clearTimeout(retry);
  resume = code === REFUSED ? () => location.reload() : connect;
  const press = "Press a key or touch here";
  if (code === ELSEWHERE) notice(`This dream goes on in another tab.\n${press} to go on here.`);
  else if (code === REFUSED) notice(`The player did not understand this page.\n${press} to load it again.`);
  else if (code === AWAY) notice(`Your seat was given up, you were away for so long.\n${press} to go on.`);
  else {
    const pause = Math.min(LONGEST, 0.5 * 2 ** tries) * (0.8 + 0.4 * Math.random());
    tries += 1;
    badge("line", "reconnecting …");
    if (code === ENDED || tries > 2 || !about) {
      const what = code === ENDED ? "The player has been ended." : "The connection is lost.";
      notice(`${what}\nThis page tries again by itself. ${press} to try at once.`);
    }
    if (tries > 2) outdated();
    later(pause);
  }
}

async function outdated() {  // a player that was started anew has another token
  const answer = await fetch(location.href, {cache: "no-store"}).catch(() => null);
  if (answer && answer.status === 403)
    notice("The player was started anew, and this address is no longer the right one.\nOpen the one that it printed.");
}

async function show(message) {
  const length = new DataView(message).getUint32(0);
  const status = JSON.parse(new TextDecoder().decode(new Uint8Array(message, 4, length)));
  const bitmap = await createImageBitmap(new Blob([new Uint8Array(message, 4 + length)], {type: "image/png"}));
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  send({seen: status.frame});
  if (lost) return;
  document.body.dataset.frame = status.frame;
  document.body.dataset.place = status.place;
  const now = last = performance.now();
  still = status.paused || status.ended || status.rewinding;
  notice("");
  badge("line", "");
  badge("dream", status.ended ? "the episode has ended, another one begins"
    : status.rewinding ? "◀◀ going back" : status.paused ? "paused" : "");
  const pause = document.querySelector("[data-command=pause]");
  pause.textContent = status.paused ? "resume" : "pause";
  pause.setAttribute("aria-pressed", status.paused);
  stayAwake(!status.paused);
  drawn = still ? [] : [...drawn, now].slice(-LONG);
  // The picture is on the screen when the browser has painted: no sooner than its next frame.
  if (status.answers !== null && !document.hidden) requestAnimationFrame(() => {
    latencies = [...latencies, performance.now() - status.answers].slice(-LONG);
  });
  figures(status);
}

setInterval(() => {
  if (lost || still || document.hidden) return;
  const silence = performance.now() - last;
  if (silence > BROKEN) {
    line.close();
    line = null;
    closed(0);
  } else if (silence > PATIENCE) badge("line", "waiting …");
}, 250);

document.addEventListener("visibilitychange", () => {
  if (document.hidden) letGo();
  last = performance.now();
  send({hidden: document.hidden});
  if (!document.hidden && lost && resume === connect) connect();
});
addEventListener("online", () => { if (lost && resume === connect) connect(); });
$("notice").addEventListener("pointerdown", () => { if (lost && resume) resume(); });
