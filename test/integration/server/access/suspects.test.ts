/** Few streams for the address of a stranger that sent too many half requests, over real HTTP/2. */
import { once } from "node:events";
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { expect, onTestFinished, test, vi } from "vitest";
import { createCrowd } from "../../../../src/server/http/crowd/crowd.ts";
import { openPort } from "../../../../src/server/http/port/port.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

const log = createLogger({ level: "silent", name: "test" });

/**
 * A port at which the token "good" is valid. Requests without it are answered when they are whole.
 */
async function open() {
  const crowd = createCrowd({
    ...{ connectionsMax: 100, connectionsPerAddress: 100, requestsPerAddress: 1_000 },
    ...{ knownBytesMax: 1_000_000, isBehindProxies: false, addressOf: (_, address) => address ?? "" },
  });
  const port = await openPort({
    ...{ host: "127.0.0.1", port: 0, log, crowd },
    handler(request, response) {
      if (request.headers.authorization === "good" && "stream" in request)
        crowd.find(request.stream)?.recognise("token");
      request.resume();
      request.on("end", () => response.end());
    },
  });
  onTestFinished(async () => {
    crowd.close();
    await port.close(0);
  });
  const dial = (localAddress: string) => {
    const session = connect(port.url, { localAddress } as never);
    session.on("error", () => {});
    onTestFinished(() => session.destroy());
    return session;
  };
  return { dial };
}

function ask(session: ClientHttp2Session, headers: Record<string, string>, isWhole = false) {
  const stream = session.request({ ":method": "POST", ":path": "/x", ...headers }, { endStream: isWhole });
  stream.on("error", () => {});
  stream.resume();
  return stream;
}

const isRefused = (stream: ClientHttp2Stream) => stream.closed && stream.rstCode === 7;

test("a suspect opens 8 streams at once, and any number once its token was verified; other addresses are not held back", async () => {
  const { dial } = await open();
  const hostile = dial("127.0.0.2");
  for (let count = 0; count < 30; count++) ask(hostile, {});
  await once(hostile, "close");

  const neighbour = dial("127.0.0.2");
  const first = Array.from({ length: 20 }, () => ask(neighbour, { authorization: "good" }));
  await vi.waitFor(() => expect(first.filter(isRefused)).toHaveLength(12));
  await vi.waitFor(() => expect(neighbour.remoteSettings.maxConcurrentStreams).toBe(1_000));
  const more = Array.from({ length: 20 }, () => ask(neighbour, { authorization: "good" }, true));
  await Promise.all(more.map((stream) => once(stream, "end")));
  expect(more.filter(isRefused)).toEqual([]);

  const other = dial("127.0.0.3");
  const whole = Array.from({ length: 20 }, () => ask(other, {}, true));
  await Promise.all(whole.map((stream) => once(stream, "end")));
  expect(whole.filter(isRefused)).toEqual([]);
});
