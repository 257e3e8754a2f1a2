/**
 * The turns of the replica's event loop during a herd, and how long triggers wait then. `node
 * bench/profile-herd.ts 20000 2000`: so many watchers, on so many devices, half of them connected.
 * `HERD_PROFILE=FILE` writes a profile of the replica's CPU.
 */
import { measureHerd } from "./herd.ts";
import { percentiles } from "./lib/percentiles.ts";

const watchers = Number(process.argv[2] ?? 20_000);
const devices = Number(process.argv[3] ?? 2_000);
const dueInMs = Number(process.argv[4] ?? 12_000);
const toldMax = 12;
const path = process.env.HERD_PROFILE;

type Turn = { at: number; ms: number };
let turns: Turn[] = [];
const measured = await measureHerd(
  { watchers, devices, connected: devices / 2, orgs: 20 },
  dueInMs,
  async (replica) => {
    await replica.ask({ kind: "turns" });
    if (path) await replica.ask({ kind: "profile" });
    return async () => {
      turns = await replica.ask<Turn[]>({ kind: "turned" });
      if (path) await replica.ask({ kind: "profiled", path });
    };
  },
);
const { deliveredSeconds, otherLateMs, recordedSeconds, triggered, dueAt } = measured;
console.log({ deliveredSeconds, otherLateMs, recordedSeconds });
console.log("trigger to frame, ms", percentiles(triggered), triggered.map(Math.round).join(" "));
console.log("the longest turns, ms; after the moment, ms");
console.table(turns.slice(0, toldMax).map(({ at, ms }) => ({ ms, after: at - dueAt.getTime() })));
process.exit(0);
