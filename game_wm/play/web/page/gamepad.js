// A gamepad as keys, as in the window: stick and directional pad are the arrows, buttons the game's other keys in order;
// of those left, the fifth (a shoulder) runs time backwards, and start pauses.
const SHOULDER = 4, BACK = 8, START = 9;  // of the standard layout
const CROSS = {up: 12, down: 13, left: 14, right: 15};
let polling = false, started = new Set();  // pads whose start button is down

function pads() {
  return navigator.getGamepads ? [...navigator.getGamepads()].filter(Boolean) : [];
}

function poll() {
  const found = pads();
  if (choosing()) found.forEach(choosePad);
  else if (!lost && about) for (const pad of found) {
    const down = i => pad.buttons[i] ? pad.buttons[i].value : 0, who = `pad ${pad.index}`, at = performance.now();
    const [x, y] = pad.axes;
    for (const [arrow, way] of [["left", -x], ["right", x], ["up", -y], ["down", y]]) {
      if (!gameKeys.has(arrowKey(arrow))) continue;
      const level = Math.max(way > DEAD ? way : 0, down(CROSS[arrow]));
      hold(`${who} ${arrow}`, arrowKey(arrow), about.axes ? Math.round(FINE * level) / FINE : Number(level > 0.5), at);
    }
    const arrows = Object.keys(ARROWS).map(arrowKey);
    const buttons = about.keys.map(row => row.keys[0]).filter(key => !arrows.includes(key));
    buttons.forEach((key, i) => hold(`${who} ${key}`, key, Number(down(i) > 0.5), at));
    if (buttons.length <= SHOULDER) rewind(who, down(SHOULDER) > 0.5);
    const start = down(START) > 0.5;
    if (start && !started.has(pad.index)) obey("pause");
    if (start) started.add(pad.index); else started.delete(pad.index);
    if (down(BACK) > 0.5 && buttons.length <= BACK) obey("quit");
  }
  polling = found.length > 0;
  if (polling) requestAnimationFrame(poll);
}

addEventListener("gamepadconnected", () => { if (!polling) poll(); });
addEventListener("gamepaddisconnected", letGo);
