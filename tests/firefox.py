"""Debian's Firefox, driven by its own Marionette protocol: WebDriver's commands as JSON over a socket, no driver between."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, final

PROGRAM = shutil.which("firefox-esr")
PREFERENCES = (
    'user_pref("marionette.port", {port});\nuser_pref("browser.shell.checkDefaultBrowser", false);\n'
    'user_pref("datareporting.policy.dataSubmissionEnabled", false);\nuser_pref("app.update.enabled", false);\n'
    'user_pref("network.captive-portal-service.enabled", false);\nuser_pref("browser.download.folderList", 2);\n'
    'user_pref("browser.download.dir", "{downloads}");\nuser_pref("browser.download.useDownloadDir", true);\n'
    'user_pref("browser.helperApps.neverAsk.saveToDisk", "image/webp,image/png,application/zip,text/plain");\n'
)
PATIENCE_S = 240
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's reference (WebDriver, section 12.1)."""
KEYS = {
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
    "Escape": "\ue00c",
    "Enter": "\ue007",
}


@final
class Firefox:
    """A running Firefox with one window."""

    def __init__(self, place: Path) -> None:
        assert PROGRAM is not None
        self.downloads = place / "downloads"
        profile = place / "profile"
        for folder in (self.downloads, profile):
            folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (profile / "user.js").write_text(PREFERENCES.format(port=port, downloads=self.downloads))
        words = [
            PROGRAM,
            "--headless",
            "--marionette",
            "-remote-allow-system-access",
            "--no-remote",
            "--profile",
            str(profile),
        ]
        with (place / "firefox.log").open("wb") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        self._socket = self._connected(port)
        self._socket.settimeout(PATIENCE_S)
        self._number = 0
        self._received()
        self._ask("WebDriver:NewSession", {"capabilities": {}})

    def go(self, address: str) -> None:
        """Open a page and wait until it is loaded."""
        self._ask("WebDriver:Navigate", {"url": address})

    def resize(self, width: int, height: int) -> None:
        """Give the window a size."""
        self._ask("WebDriver:SetWindowRect", {"width": width, "height": height})

    def run(self, script: str, *args: Any) -> Any:  # Any: JSON
        """Run the body of a function in the page, and return what it returns."""
        return self._ask("WebDriver:ExecuteScript", {"script": script, "args": list(args)})["value"]

    def wait(self, expression: str, *, seconds: float = PATIENCE_S) -> Any:  # Any: JSON
        """Wait until an expression is true in the page; return its value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := self.run(f"return {expression};"):
                return value
            time.sleep(0.1)
        shown = self.run("return document.body.innerText")
        raise AssertionError(f"{expression} is not true after {seconds} s; the page says {shown[:2000]}")

    def click(self, selector: str) -> None:
        """Click the first element of this selector."""
        self._ask("WebDriver:ElementClick", {"id": self._element(selector)})

    def type(self, selector: str, text: str) -> None:
        """Type in the place of what a field has."""
        element = self._element(selector)
        self._ask("WebDriver:ElementClear", {"id": element})
        self._ask("WebDriver:ElementSendKeys", {"id": element, "text": text})

    def press(self, *names: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        events = [{"type": kind, "value": KEYS.get(name, name)} for name in names for kind in ("keyDown", "keyUp")]
        self._ask("WebDriver:PerformActions", {"actions": [{"type": "key", "id": "keys", "actions": events}]})

    def errors(self, address: str) -> list[str]:
        """What the console has of a page's errors and warnings."""
        script = """
            const errors = Services.console.getMessageArray().filter((one) => one instanceof Ci.nsIScriptError);
            return errors.filter((one) => one.sourceName.startsWith(arguments[0]))
                .map((one) => `${one.sourceName}:${one.lineNumber} ${one.errorMessage}`);"""
        self._ask("Marionette:SetContext", {"value": "chrome"})
        found: list[str] = self.run(script, address)
        self._ask("Marionette:SetContext", {"value": "content"})
        return found

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)

    def _element(self, selector: str) -> str:
        found = self._ask("WebDriver:FindElement", {"using": "css selector", "value": selector})
        return str(found["value"][ELEMENT])

    def _connected(self, port: int) -> socket.socket:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", port), 5)
            except OSError:
                time.sleep(0.2)
        raise AssertionError("Firefox does not open its Marionette port")

    def _ask(self, command: str, parameters: dict[str, Any]) -> Any:  # Any: JSON
        self._number += 1
        sent = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(sent), sent))
        _, number, error, result = self._received()
        assert number == self._number
        if error:
            raise AssertionError(f"{command}: {error['message'][:2000]}")
        return result

    def _received(self) -> Any:  # Any: JSON
        length = b""
        while not length.endswith(b":"):
            length += self._some(1)
        return json.loads(self._some(int(length[:-1])))

    def _some(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            more = self._socket.recv(count - len(content))
            assert more, "Firefox has closed the connection"
            content += more
        return content
