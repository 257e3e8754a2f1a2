import { expect, test } from "vitest";
import { Refusal } from "../../../../src/errors.ts";
import { createLimits } from "../../../../src/server/access/limits.ts";
import { createBuckets, networkOf } from "../../../../src/server/http/crowd/buckets.ts";

function clocked() {
  let at = 0;
  return { now: () => at, pass: (ms: number) => (at += ms) };
}

function refusalOf(call: () => void): Refusal | undefined {
  try {
    call();
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
  return undefined;
}

const rates = { requestsPerToken: 10, requestsBurst: 20, failuresPerAddress: 3 };

test("a token calls as often as its rate says, after a rest as often as the burst says, and is told when to come back", () => {
  const { now, pass } = clocked();
  const limits = createLimits(rates, now);
  for (let call = 0; call < 20; call++) limits.requireRequest("a");
  expect(refusalOf(() => limits.requireRequest("a"))).toMatchObject({
    reason: "resource_exhausted",
    message: expect.stringContaining("more than 10 calls a second"),
    retryAfterMs: 100,
  });
  limits.requireRequest("b");
  pass(100);
  limits.requireRequest("a");
  expect(refusalOf(() => limits.requireRequest("a"))).toBeDefined();
  pass(1_000_000);
  for (let call = 0; call < 20; call++) limits.requireRequest("a");
  expect(refusalOf(() => limits.requireRequest("a"))).toBeDefined();
});

test("an address is refused after its failures of a minute, and let in again as they age", () => {
  const { now, pass } = clocked();
  const limits = createLimits(rates, now);
  for (let failure = 0; failure < 3; failure++) {
    limits.requireAttempt("192.0.2.1");
    limits.countFailure("192.0.2.1");
  }
  expect(refusalOf(() => limits.requireAttempt("192.0.2.1"))).toMatchObject({
    reason: "resource_exhausted",
    retryAfterMs: 20_000,
  });
  limits.requireAttempt("192.0.2.2");
  pass(20_000);
  limits.requireAttempt("192.0.2.1");
  limits.countFailure("192.0.2.1");
  expect(refusalOf(() => limits.requireAttempt("192.0.2.1"))).toBeDefined();
});

test("a rate of 0 switches a limit off", () => {
  const limits = createLimits({ requestsPerToken: 0, requestsBurst: 1, failuresPerAddress: 0 }, () => 0);
  for (let call = 0; call < 1_000; call++) {
    limits.requireRequest("a");
    limits.countFailure("192.0.2.1");
    limits.requireAttempt("192.0.2.1");
  }
});

test("however many addresses there are, as many are remembered as the bound says", () => {
  const buckets = createBuckets({ perMs: 1, burst: 1, keysMax: 100, now: () => 0 });
  for (let key = 0; key < 1_000; key++) buckets.take(String(key));
  expect(buckets.size).toBe(100);
});

test("all addresses of a /64 are one, and an IPv4 address is itself however it is written", () => {
  expect(networkOf("2001:db8:0:1::5")).toBe("2001:db8:0:1::/64");
  expect(networkOf("2001:DB8:0000:0001:ffff:ffff:ffff:ffff")).toBe("2001:db8:0:1::/64");
  expect(networkOf("2001:db8:0:2::5")).not.toBe("2001:db8:0:1::/64");
  expect(networkOf("fe80::1%eth0")).toBe("fe80:0:0:0::/64");
  expect(networkOf("::1")).toBe("0:0:0:0::/64");
  expect(networkOf("::ffff:192.0.2.1")).toBe("192.0.2.1");
  expect(networkOf("192.0.2.1")).toBe("192.0.2.1");
});

test("counting a call costs less than ten microseconds", () => {
  const limits = createLimits({ requestsPerToken: 1e9, requestsBurst: 1e9, failuresPerAddress: 100 });
  const calls = 100_000;
  const before = process.cpuUsage();
  for (let call = 0; call < calls; call++) limits.requireRequest(`token-${call % 1_000}`);
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / calls).toBeLessThan(10);
});
