"""Reads a run's events as the SDKs do: a stream that is cut is taken up again by its last id."""

import aiohttp

# What a client sees when the connection closes: between two requests, or in a stream.
CUT = (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)


class Follower:
    """One run's stream. `received` grows with each event, exactly once if the server keeps its word."""

    def __init__(self, api, path, body=None, *, key=None, location=None, on_event=None):
        """@param body      starts the run at `path`; `key` makes it safe to send again
           @param location  of a run that exists instead
           @param on_event  called with each event when it comes"""
        self.received = []
        self.location = location
        self.cuts = 0
        self._api, self._path, self._body, self._key = api, path, body, key
        self._on_event = on_event or (lambda event: None)

    async def attempt(self):
        """Reads until the stream ends as it should. One of CUT, or Refused (api_client.py), if it does not:
        then this may be called again."""
        if self.location is None:
            opened = self._api.open_stream("POST", self._path, self._body,
                                           headers={"idempotency-key": self._key})
        else:
            seen = [event.id for event in self.received[-2:] if event.id is not None]
            headers = {"last-event-id": seen[-1]} if seen else {}
            opened = self._api.open_stream("GET", self.location, headers=headers)
        try:
            async with opened as (response, events):
                self.location = response.headers["location"] if self.location is None \
                    else self.location
                async for event in events:
                    self.received.append(event)
                    self._on_event(event)
        except CUT:
            self.cuts += 1
            raise

    async def whole(self):
        """All events, however often the connection is cut. Refusals are not repeated."""
        while True:
            try:
                await self.attempt()
                return self.received
            except CUT:
                continue
