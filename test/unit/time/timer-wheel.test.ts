import { afterEach, expect, test, vi } from "vitest";
import { TimerWheel } from "../../../src/time/timer-wheel.ts";

afterEach(() => vi.useRealTimers());

function setUp() {
  vi.useFakeTimers();
  const wheel = new TimerWheel(250);
  const calls: string[] = [];
  const after = (ms: number, name = String(ms)) => wheel.after(ms, () => calls.push(name));
  return { wheel, calls, after };
}

test("each is called once, never early, and two ticks late at most; one timer serves all", () => {
  const { wheel, calls, after } = setUp();
  for (const ms of [0, 100, 1_000, 1_001, 60_000]) after(ms);
  expect(vi.getTimerCount()).toBe(1);
  vi.advanceTimersByTime(999);
  expect(calls).toEqual(["0", "100"]);
  vi.advanceTimersByTime(502);
  expect(calls).toEqual(["0", "100", "1000", "1001"]);
  vi.advanceTimersByTime(58_000);
  expect(calls).toHaveLength(4);
  vi.advanceTimersByTime(1_000);
  expect(calls).toHaveLength(5);
  expect([wheel.size, vi.getTimerCount()]).toEqual([0, 0]);
});

test("one that is hours away is called no earlier and no later than one that is near", () => {
  const { wheel, calls, after } = setUp();
  const startedAt = performance.now();
  const until = (ms: number) => vi.advanceTimersByTime(startedAt + ms - performance.now());
  const delays = [63_000, 64_200, 128_000, 3_600_333, 7_200_000, 10_000_001];
  for (const ms of delays) after(ms);
  const cancelled = after(7_000_000, "cancelled");
  for (const ms of delays) {
    until(ms - 1);
    expect(calls).not.toContain(`${ms}`);
    until(ms + 501);
    expect(calls).toContain(`${ms}`);
    cancelled.cancel();
  }
  expect(calls).toHaveLength(delays.length);
  expect([wheel.size, vi.getTimerCount()]).toEqual([0, 0]);
});

test("owners can share one function, which is called with the owner", () => {
  const { wheel, calls } = setUp();
  const look = ({ name }: { name: string }) => calls.push(name);
  const [one] = ["one", "other"].map((name) => wheel.after(500, look, { name }));
  one?.cancel();
  vi.advanceTimersByTime(1_000);
  expect(calls).toEqual(["other"]);
});

test("a cancelled one is not called, and one may be set and cancelled within a call", () => {
  const { wheel, calls, after } = setUp();
  const first = after(500, "first");
  const other = after(500, "other");
  wheel.after(400, () => {
    other.cancel();
    after(500, "later");
  });
  first.cancel();
  first.cancel();
  vi.advanceTimersByTime(2_000);
  expect(calls).toEqual(["later"]);
});

test("what a callback throws keeps no other from being called", async () => {
  const { wheel, calls, after } = setUp();
  const ticks = vi.spyOn(process, "nextTick").mockImplementation(() => {});
  wheel.after(100, () => {
    throw new Error("no good");
  });
  after(100);
  vi.advanceTimersByTime(500);
  expect(calls).toEqual(["100"]);
  expect(ticks).toHaveBeenCalledTimes(1);
  ticks.mockRestore();
});

test("after a standstill of the process all that is due is called", () => {
  const { calls, after } = setUp();
  for (const ms of [100, 5_000, 9_000]) after(ms);
  vi.setSystemTime(Date.now() + 8_000);
  vi.advanceTimersByTime(10_000);
  expect(calls).toEqual(["100", "5000", "9000"]);
});
