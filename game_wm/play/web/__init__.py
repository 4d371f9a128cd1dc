"""The player in a browser: one page, a WebSocket for each player, all their dreams in one batch.

    room = Room(checkpoint.load("checkpoints/maze.safetensors"), players=2)
    asyncio.run(serve(Server(room, players=2), listen("127.0.0.1", 8080)))

Start reading at `server.py`; `rooms.py` has a model and its players, and the gallery that offers several. `door.py`
lets connections in and out again, `player.py` is one page's side of it, `dreams.py` the model's; `page/` is what the
browser runs.

The page sends JSON: `{"key": "up", "level": 1, "at": 1234.5}` (how far a key is down, 0 to 1, at which moment of the
page's own clock), `{"command": "restart"}` (or next, previous, pause), `{"rewind": true}` and `{"hidden": true}` as
long as that holds, and `{"seen": 17}` for a picture that it has drawn. It gets `Room.about` as JSON, then pictures:
four bytes with the length of a JSON object (`Player.status`), the object, a PNG. Where there is no place for it, it
gets `{"full": words, "again": seconds}`, its line is closed, and it opens another then. One that has chosen from the
gallery (`GET /gallery`; `?dream=` and the key of a tile) gets `{"loading": stage, "done": share}` before, or
`{"failed": words}` and no more. With `?ticket=` and the one that `about` held, a new line goes on with the dream of an
old one; `GET /dream?ticket=` is that dream as a file.
"""

from game_wm.play.web.addresses import address, certificate, is_loopback, listen, qr_code
from game_wm.play.web.rooms import Gallery, Room
from game_wm.play.web.server import Server, serve

__all__ = ["Gallery", "Room", "Server", "address", "certificate", "is_loopback", "listen", "qr_code", "serve"]
