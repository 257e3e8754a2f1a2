import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  type ConnectionEvent,
  type ConnectionState,
  Lifecycle,
  transitions,
} from "../../../clients/ts/src/device/lifecycle.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const states = Object.keys(transitions) as ConnectionState[];

test("nothing leaves the closed state", () => {
  expect(Object.values(transitions.closed).every((to) => to === null)).toBe(true);
});

test("every state can be reached, and from every state the connection can be closed", () => {
  const reached = new Set(states.flatMap((state) => Object.values(transitions[state])));
  for (const state of states.filter((name) => name !== "idle")) expect(reached).toContain(state);
  for (const state of states.filter((name) => name !== "closed")) {
    expect(transitions[state].stopped).toBe("closed");
    expect(transitions[state].failed).toBe("closed");
  }
});

test("a stream that ends leads to waiting, whatever it was doing", () => {
  for (const state of ["dialing", "greeting", "serving", "draining"] as const) {
    expect(transitions[state].ended).toBe("waiting");
  }
});

test("leaving a state clears its timers; an event that comes late changes nothing", () => {
  const changes: string[] = [];
  const lifecycle = new Lifecycle((to, from) => changes.push(`${from}>${to}`));
  const fired: string[] = [];
  lifecycle.fire("started");
  lifecycle.after(100, () => fired.push("dial deadline"));
  lifecycle.every(10, () => fired.push("tick"));
  vi.advanceTimersByTime(25);
  expect(lifecycle.fire("connected")).toBe(true);
  vi.advanceTimersByTime(1_000);
  expect(fired).toEqual(["tick", "tick"]);
  expect(lifecycle.fire("due")).toBe(false);
  expect(changes).toEqual(["idle>dialing", "dialing>greeting"]);
});

test("a whole life: served, drained, dialled again, closed", () => {
  const lifecycle = new Lifecycle(() => {});
  const events: ConnectionEvent[] = [
    "started",
    "connected",
    "welcomed",
    "drained",
    "ended",
    "due",
    "connected",
  ];
  for (const event of events) expect(lifecycle.fire(event)).toBe(true);
  expect(lifecycle.state).toBe("greeting");
  lifecycle.fire("stopped");
  expect(lifecycle.state).toBe("closed");
});
