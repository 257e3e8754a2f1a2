/** Answers of platforms' APIs that no adapter should have to hold, or can. */
import { type AddressInfo, createServer, type Socket } from "node:net";
import { LogLevel, WebClient } from "@slack/web-api";
import { expect, onTestFinished, test } from "vitest";
import { createReach } from "../../../src/network/addresses.ts";
import { outgoingFetch } from "../../../src/server/access/oidc-fetch.ts";
import { adapterKinds } from "../../../src/server/platforms/lines/adapters.ts";
import { fetchWithin } from "../../../src/server/platforms/lines/confined.ts";

async function openPeer(behave: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => behave(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

const everywhere = createReach(() => true);

function flood(socket: Socket): void {
  socket.write("HTTP/1.1 200 x\r\n\r\n");
  const more = () => {
    while (!socket.destroyed && socket.write("a".repeat(65_536)));
    if (!socket.destroyed) socket.once("drain", more);
  };
  more();
}

test("Slack's own client gives up an answer without end, too", async () => {
  const options = adapterKinds.slack!.options({
    ...{ config: {}, secrets: { bot_token: "xoxb-1", signing_secret: "s" }, webhookUrl: undefined },
    ...{ apiUrl: "http://127.0.0.1", listens: false, logger: {} as never, reach: everywhere },
  }) as { webClientOptions: object };
  const client = new WebClient("xoxb-1", {
    ...options.webClientOptions,
    ...{ slackApiUrl: await openPeer(flood), retryConfig: { retries: 0 }, logLevel: LogLevel.ERROR },
  });
  await expect(client.auth.test()).rejects.toThrow("maxContentLength size of 8388608 exceeded");
});

test.each([999, 600])(
  "a provider's status that nobody has (%d) is an error of the request alone",
  async (status) => {
    const url = await openPeer((socket) => socket.end(`HTTP/1.1 ${status} x\r\nContent-Length: 0\r\n\r\n`));
    await expect(outgoingFetch(url, { method: "GET", headers: {} })).rejects.toThrow();
  },
);

test("an answer without end is given up, and its connection is closed", async () => {
  const closed = Promise.withResolvers<void>();
  const url = await openPeer((socket) => {
    socket.on("close", () => closed.resolve());
    flood(socket);
  });
  const answer = await fetchWithin(everywhere, url);
  await expect(answer.text()).rejects.toThrow("answers with more than 8388608 bytes");
  await closed.promise;
});

test("an answer as long as the bound is read", async () => {
  const text = "a".repeat(8_388_608);
  const url = await openPeer((socket) =>
    socket.end(`HTTP/1.1 200 x\r\nContent-Length: ${text.length}\r\n\r\n${text}`),
  );
  expect((await (await fetchWithin(everywhere, url)).text()).length).toBe(text.length);
});

test.each([999, 600, 199])(
  "a status that nobody has (%d) is an error of the request alone",
  async (status) => {
    const url = await openPeer((socket) => socket.end(`HTTP/1.1 ${status} x\r\nContent-Length: 0\r\n\r\n`));
    await expect(fetchWithin(everywhere, url)).rejects.toThrow();
  },
);
