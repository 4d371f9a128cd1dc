// What the page gives away: the dream as a file that the window goes on with, the picture as it is on the screen.
function give(blob, filename) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = filename;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

let telling = 0;

function tell(words) {
  clearTimeout(telling);
  badge("file", words);
  telling = setTimeout(() => badge("file", ""), 6000);
}

async function save() {
  tell("saving …");
  try {
    const answer = await fetch(address("/dream", {ticket: sessionStorage.getItem(ticketName())}), {cache: "no-store"});
    if (!answer.ok) return tell((await answer.text()).replace(/^\d+: /, ""));
    const filename = decodeURIComponent(answer.headers.get("Content-Disposition").split("''")[1]);
    give(await answer.blob(), filename);
    tell(`saved ${filename}; play.py --load goes on with it`);
  } catch {
    tell("it could not be saved: the connection is lost");
  }
}

function screenshot() {
  const factor = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio / canvas.width));
  const large = document.createElement("canvas"), brush = large.getContext("2d");
  large.width = factor * canvas.width;
  large.height = factor * canvas.height;
  brush.imageSmoothingEnabled = false;
  brush.drawImage(canvas, 0, 0, large.width, large.height);
  const filename = `${about.name}-place${Number(document.body.dataset.place) + 1}-frame${document.body.dataset.frame}.png`;
  large.toBlob(blob => {
    give(blob, filename);
    tell(`saved ${filename}`);
  }, "image/png");
}
