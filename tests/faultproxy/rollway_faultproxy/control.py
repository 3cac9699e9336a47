"""The proxy's own address, apart from the one that it answers on in the server's place.

PUT    /rules/<name>    put a rule in force; the body is the rule
DELETE /rules/<name>    take it away; what it holds goes on
DELETE /rules           take every rule away
GET    /rules           the rules, and how often each matched and fired
GET    /calls?after=N   the calls after the Nth
GET    /counts          how many calls there were, by verb and resource
"""

from aiohttp import web
from pydantic import ValidationError

from rollway_faultproxy.proxy import Proxy
from rollway_faultproxy.rules import RULE


def control(proxy: Proxy) -> web.Application:
    """Make the application that answers there."""

    async def put(request: web.Request) -> web.Response:
        try:
            rule = RULE.validate_json(await request.read())
        except ValidationError as error:
            return web.json_response({"error": str(error)}, status=400)
        proxy.rules.put(request.match_info["name"], rule)
        return web.json_response({})

    async def withdraw(request: web.Request) -> web.Response:
        proxy.rules.withdraw(request.match_info["name"])
        return web.json_response({})

    async def clear(_: web.Request) -> web.Response:
        proxy.rules.clear()
        return web.json_response({})

    async def rules(_: web.Request) -> web.Response:
        return web.json_response(proxy.rules.shown())

    async def calls(request: web.Request) -> web.Response:
        return web.json_response(proxy.journal.after(int(request.query.get("after", "0"))))

    async def counts(_: web.Request) -> web.Response:
        return web.json_response(dict(proxy.journal.counts))

    async def end_streams(_: web.Request) -> web.Response:
        return web.json_response(proxy.end_streams())

    application = web.Application()
    application.add_routes(
        [
            web.put("/rules/{name}", put),
            web.delete("/rules/{name}", withdraw),
            web.delete("/rules", clear),
            web.get("/rules", rules),
            web.get("/calls", calls),
            web.get("/counts", counts),
            web.delete("/streams", end_streams),
        ]
    )
    return application
