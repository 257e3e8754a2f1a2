import { expect, test } from "vitest";
import type { Entry, Happening } from "../../chaos/history.ts";
import { summarize } from "../../chaos/summary.ts";

const at = (seconds: number, happening: Happening): Entry => ({ at: seconds * 1_000, ...happening });
const ack = (seconds: number, device: string) =>
  at(seconds, { kind: "seen", device, stream: "s", message: { case: "heartbeatAck" } });
const begin = (
  seconds: number,
  fault: number,
  name: "network_reset" | "postgres_outage",
  targets: string[],
) => at(seconds, { kind: "fault", fault, name, phase: "begin", targets });
const end = (seconds: number, fault: number, name: "network_reset" | "postgres_outage", targets: string[]) =>
  at(seconds, { kind: "fault", fault, name, phase: "end", targets });
const device = (name: string) => at(0, { kind: "device", device: name, host: "h", org: "o", slots: 1 });

function worstOf(history: Entry[]) {
  const rows = { runs: [] } as unknown as Parameters<typeof summarize>[0]["rows"];
  const fault = summarize({ history, rows, faultsMs: 0, messages: 0, calls: 0 }).faults.find(
    ({ kind }) => kind === "network_reset",
  );
  return { worst: fault!.worstRecoveryMs, alone: fault!.worstAloneMs };
}

test("a recovery lasts from the fault's end until each device that it struck has heard from a replica", () => {
  const history = [
    ...[device("a"), device("b"), ack(1, "a"), ack(1, "b")],
    ...[begin(2, 1, "network_reset", ["a", "b"]), end(3, 1, "network_reset", ["a", "b"])],
    ...[ack(4, "a"), ack(9, "b")],
  ];
  expect(worstOf(history)).toEqual({ worst: 6_000, alone: 6_000 });
});

test("one during which the database was away, or the same device was struck again, is told apart", () => {
  const struck = [
    ...[device("a"), device("b"), ack(1, "a"), ack(1, "b")],
    ...[begin(2, 1, "network_reset", ["a"]), end(3, 1, "network_reset", ["a"])],
  ];
  const other = (name: "network_reset" | "postgres_outage", target: string) =>
    worstOf([
      ...struck,
      begin(4, 2, name, [target]),
      ack(60, "a"),
      end(61, 2, name, [target]),
      ack(62, "a"),
      ack(62, "b"),
    ]);
  expect(other("postgres_outage", "postgres")).toEqual({ worst: 57_000, alone: undefined });
  expect(other("network_reset", "b").alone).toBe(57_000);
  expect(other("network_reset", "a").alone).toBe(1_000);
});
