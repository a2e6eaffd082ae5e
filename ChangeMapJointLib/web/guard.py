"""Who may talk to the viewer: nobody without the token of its address, and no page of another origin."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

PARAMETER = "token"
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    # Vue compiles the page's template, which needs unsafe-eval; nothing may come from or go to another host
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'self'; form-action 'none'; object-src 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
REPORT_POLICY = (  # in an origin of its own, which cannot use the cookie, nor reach a host: the hashes do not cover it
    "sandbox allow-scripts allow-modals; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)
REFUSED = (
    "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Refused</title>"
    "<body style='font:18px sans-serif;max-width:40em;margin:3em auto'><h1>Refused</h1>"
    "<p>{why}</p><p>Open the address that <code>changemap view</code> printed.</p></body></html>"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Checks every request and the websocket.

    The address carries the token once. The page's own requests carry it as a cookie, which scripts cannot read and
    which no other site's page can send. A browser that is started gets a ticket in place of the token: it is valid for
    one request, since other users of the computer can read the command line. A request that shows no page, such as one
    by which a browser or a mail program looks ahead, neither spends it nor is answered.

    Attributes:
        token: of this start of the viewer.
    """

    def __init__(self, host: str, token: str | None = None) -> None:
        """Make a guard.

        Args:
            host: the address that the server listens on.
            token: None to draw one.
        """
        self.token = token or secrets.token_urlsafe(24)
        self._host = host
        self._tickets: set[str] = set()
        self._cookie = f"changemap_{secrets.token_hex(4)}"  # cookies are shared between ports

    def ticket(self) -> str:
        """Return what can stand in place of the token in one address, once."""
        made = secrets.token_urlsafe(24)
        self._tickets.add(made)
        return made

    def install(self, app: web.Application, report: Callable[[], Path | None]) -> None:
        """Put the guard before all routes of an application, and add the one of the report.

        Args:
            app: the web application.
            report: returns the path of the report; None without one.
        """

        async def serve_report(_request: web.Request) -> web.StreamResponse:
            path = report()
            if path is None or not path.is_file():
                raise web.HTTPNotFound(text="This run has no report.")
            headers = {"Content-Security-Policy": REPORT_POLICY, "Content-Type": "text/html; charset=utf-8"}
            return web.Response(body=path.read_bytes(), headers=headers)

        async def say_where(request: web.Request) -> web.StreamResponse:  # the page asks for it before it connects
            return web.json_response({"sessionURL": f"ws://{request.headers['Host']}/ws"})

        app.middlewares.insert(0, self.middleware())  # type: ignore[arg-type]  # aiohttp names its decorated form
        for path in ("/paraview", "/paraview/"):
            app.router.add_post(path, say_where)
        app.router.add_get("/report.html", serve_report)

    def middleware(self) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
        """Return the middleware."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            why = self.refusal(request)
            if why:
                return web.Response(
                    status=403, text=REFUSED.format(why=why), content_type="text/html", headers={**HEADERS}
                )
            try:
                response = await handler(request)
            except web.HTTPException as raised:
                self._finish(request, raised)
                raise
            except ConnectionResetError:  # the page was closed while an answer was on its way: nobody is there
                return web.Response()
            if not response.prepared:
                self._finish(request, response)
            return response

        return check

    def _finish(self, request: web.Request, response: web.StreamResponse) -> None:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if PARAMETER in request.query:
            response.set_cookie(self._cookie, self.token, httponly=True, samesite="Strict", path="/")

    def refusal(self, request: web.Request) -> str:
        """Return why a request is refused; empty if it may pass."""
        host = request.headers.get("Host", "")
        if not self._is_own(host):  # a name that another site had pointed here
            return "This viewer is not reached under that name."
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            return "The request comes from another site's page."
        if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            navigates = request.headers.get("Sec-Fetch-Mode") == "navigate"  # a link in a mail or a chat
            if not (navigates and PARAMETER in request.query):
                return "The request comes from another site's page."
        return self._without_right(request)

    def _without_right(self, request: web.Request) -> str:
        """Return why neither ticket nor token let a request pass; empty if one does. A ticket is spent by that."""
        given = request.query.get(PARAMETER) or ""
        if given in self._tickets:
            if request.method != "GET" or _looks_ahead(request):  # the page itself is still to come
                return "This address opens the page once."
            self._tickets.remove(given)
            return ""
        if any(self._is_token(text) for text in (given, request.cookies.get(self._cookie) or "")):
            return ""
        return "The address has no valid token."

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.token.encode())

    def _is_own(self, host: str) -> bool:
        """Whether a Host header names this computer by an address, or by its local name."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name in LOCAL_NAMES:
            return True
        if self._host in LOCAL_NAMES:
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name == self._host
        return True


def _looks_ahead(request: web.Request) -> bool:
    """Whether a browser fetches a page that nobody has opened yet."""
    said = " ".join(request.headers.get(name, "") for name in ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")).lower()
    return any(word in said for word in ("prefetch", "prerender", "preview"))
