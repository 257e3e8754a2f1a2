/**
 * Permitted addresses of destinations: the public internet, judged by the dialled address, and the
 * operator's exceptions.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { AddressRefused, createReach, parseNetworks } from "../../../src/network/addresses.ts";
import { post } from "../../../src/network/outgoing.ts";

const publicOnly = createReach(parseNetworks(""));

test("addresses that are not of the public internet are refused, however they are written", () => {
  const refused = [
    ...["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"],
    ...[
      "169.254.169.254",
      "100.64.0.1",
      "100.100.100.200",
      "192.0.0.192",
      "198.18.0.1",
      "224.0.0.1",
      "240.0.0.1",
    ],
    ...[
      "255.255.255.255",
      "168.63.129.16",
      "::",
      "::1",
      "fe80::1",
      "fe80::1%eth0",
      "fc00::1",
      "fd00:ec2::254",
    ],
    ...["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::a9fe:a9fe"],
    ...[
      "2002:7f00:1::",
      "2001:0:53aa:64c:0:0:0:1",
      "ff02::1",
      "fec0::1",
      "2001:db8::1",
      "not an address",
      "",
      "::7f00:1",
      "::a9fe:a9fe",
      "4000::1",
    ],
  ];
  expect(refused.filter((address) => publicOnly.isAllowed(address))).toEqual([]);
  const allowed = [
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
  ];
  expect(allowed.filter((address) => !publicOnly.isAllowed(address))).toEqual([]);
});

test("the operator allows networks, and a mistyped one is named", () => {
  const reach = createReach(parseNetworks("10.1.0.0/16, 192.168.7.7, fd00::/8"));
  const judged = [
    "10.1.2.3",
    "::ffff:10.1.2.3",
    "192.168.7.7",
    "fd12::1",
    "10.2.0.1",
    "192.168.7.8",
    "127.0.0.1",
  ];
  expect(judged.map((address) => reach.isAllowed(address))).toEqual([
    true,
    true,
    true,
    true,
    false,
    false,
    false,
  ]);
  expect(createReach(parseNetworks("*")).isAllowed("127.0.0.1")).toBe(true);
  expect(() => parseNetworks("10.0.0.0/8, ten")).toThrow(/"ten" is no network/);
  expect(() => parseNetworks("10.0.0.0/99")).toThrow(/is no network/);
  // Else they would be read as something that nobody means.
  for (const text of [
    "10/8",
    "0/0",
    "10",
    "::ffff:10.0.0.0/104",
    "10.0.0.0/8/8",
    "10.0.0.0/",
    "0x0a.0.0.0/8",
  ])
    expect(() => parseNetworks(text), text).toThrow(/is no network/);
});

async function serve(handler: Parameters<typeof createServer>[1] & object): Promise<number> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

const message = { headers: {}, body: "{}", signal: AbortSignal.timeout(5_000), redirectsMax: 3 };

test("a name, an odd spelling of an address, and a redirect are judged by where they lead", async () => {
  let asked = 0;
  const port = await serve((_, answer) => {
    asked += 1;
    answer.end("ok");
  });
  for (const host of [
    "127.0.0.1",
    "localhost",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "[::ffff:127.0.0.1]",
    "[::1]",
  ]) {
    const url = new URL(`http://${host}:${port}/`);
    await expect(post(url, { ...message, reach: publicOnly }), host).rejects.toThrow(AddressRefused);
  }
  expect(asked).toBe(0);

  // The receiver's address is permitted, and the address of its redirect is not.
  const first = createReach((address) => address === "127.0.0.1");
  const redirecting = await serve((request, answer) => {
    if (request.url === "/kept")
      return void answer.writeHead(307, { location: `http://127.0.0.1:${port}/` }).end();
    if (request.url === "/changed")
      return void answer.writeHead(302, { location: `http://127.0.0.1:${port}/` }).end();
    if (request.url === "/loop") return void answer.writeHead(308, { location: "/loop" }).end();
    answer.writeHead(307, { location: `http://127.0.0.2:${port}/` }).end();
  });
  const to = (path: string) => new URL(`http://127.0.0.1:${redirecting}${path}`);
  await expect(post(to("/away"), { ...message, reach: first })).rejects.toThrow(
    /127\.0\.0\.2 is not of the public/,
  );
  expect(asked).toBe(0);
  expect(await post(to("/kept"), { ...message, reach: first })).toMatchObject({ status: 200, text: "ok" });
  expect((await post(to("/changed"), { ...message, reach: first })).status).toBe(302);
  expect((await post(to("/loop"), { ...message, reach: first })).status).toBe(308);
  expect(asked).toBe(1);
});

test("behind a proxy a name is looked up before it is handed over", async () => {
  let tunnels = 0;
  const proxy = createServer().on("connect", (_request, socket) => {
    tunnels += 1;
    socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n");
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void proxy.close());
  const before = process.env.http_proxy;
  process.env.http_proxy = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  onTestFinished(() => {
    if (before === undefined) delete process.env.http_proxy;
    else process.env.http_proxy = before;
  });
  await expect(post(new URL("http://10.0.0.1/"), { ...message, reach: publicOnly })).rejects.toThrow(
    AddressRefused,
  );
  expect(tunnels).toBe(0);
  await expect(post(new URL("http://8.8.8.8/"), { ...message, reach: publicOnly })).rejects.not.toThrow(
    AddressRefused,
  );
  expect(tunnels).toBe(1);
});

test("an answer that never ends is read so far and left", async () => {
  const port = await serve((_, answer) => {
    answer.writeHead(200);
    const more = () => {
      if (!answer.destroyed) answer.write("x".repeat(16_384), () => setImmediate(more));
    };
    more();
  });
  const reach = createReach(() => true);
  const answer = await post(new URL(`http://127.0.0.1:${port}/`), { ...message, reach });
  expect(answer.text).toHaveLength(65_536);
});
