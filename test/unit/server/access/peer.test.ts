import { expect, test } from "vitest";
import { addressOf } from "../../../../src/server/access/peer.ts";

const from = (remoteAddress: string | undefined, forwardedFor: string | undefined, proxies: number) =>
  addressOf({ remoteAddress, forwardedFor }, proxies);

test("without trusted proxies the address is the peer's, whatever a header claims", () => {
  expect(from("192.0.2.1", "203.0.113.9", 0)).toBe("192.0.2.1");
  expect(from("::ffff:192.0.2.1", undefined, 0)).toBe("192.0.2.1");
  expect(from(undefined, undefined, 0)).toBe("");
});

test("each trusted proxy is one entry from the end, and what lies before was written by the client", () => {
  expect(from("10.0.0.1", "198.51.100.1, 203.0.113.9", 1)).toBe("203.0.113.9");
  expect(from("10.0.0.1", "198.51.100.1, 203.0.113.9, 10.0.0.2", 2)).toBe("203.0.113.9");
  expect(from("10.0.0.1", "203.0.113.9", 2)).toBe("203.0.113.9");
  expect(from("10.0.0.1", undefined, 2)).toBe("10.0.0.1");
});

test("ports are taken off, and what is no address is passed over", () => {
  expect(from("10.0.0.1", "203.0.113.9:4711", 1)).toBe("203.0.113.9");
  expect(from("10.0.0.1", "[2001:db8::7]:4711", 1)).toBe("2001:db8::7");
  expect(from("10.0.0.1", "unknown", 1)).toBe("10.0.0.1");
});
