import { count, type SettingsOf } from "./fields.ts";

/** Rates of callers, and quotas of orgs. */
export const limitsSettings = {
  PINION_REQUESTS_PER_TOKEN: count(
    1_000,
    0,
    1_000_000,
    "Calls per second of one token, per replica, streams counted when they open; 0: no limit",
  ),
  PINION_REQUESTS_BURST: count(5_000, 1, 10_000_000, "Calls that one token may make at once after a rest"),
  PINION_FAILURES_PER_ADDRESS: count(
    100,
    0,
    1_000_000,
    "Unknown tokens and join codes per minute from one address (IPv6: a /64), per replica; beyond the limit, tokens are looked up slowly and join codes are refused; 0: no limit",
  ),
  PINION_RUNS_PER_ORG: count(
    100_000,
    1,
    10_000_000,
    "Active runs (pending, claimed, running) of one org; the org's metadata may have another value (runs_max)",
  ),
  PINION_TURNS_PER_ORG: count(
    10_000,
    1,
    10_000_000,
    "Live turns (pending, claimed, running) of one org (turns_max)",
  ),
  PINION_WATCHERS_PER_ORG: count(100_000, 1, 10_000_000, "Watchers of one org (watchers_max)"),
  PINION_DEVICES_PER_ORG: count(
    50_000,
    1,
    10_000_000,
    "Devices of one org, with its unused join codes (devices_max)",
  ),
  PINION_TOKENS_PER_ORG: count(
    10_000,
    1,
    10_000_000,
    "Valid tokens of people and services of one org (tokens_max)",
  ),
  PINION_STREAMS_PER_ORG: count(
    2_000,
    1,
    1_000_000,
    "Server streams (WatchRun, WatchEvents) of one org that are open, per replica",
  ),
};

export type LimitsConfig = {
  /** How often somebody may call, and how many streams an org may hold open, on this replica. */
  rates: {
    requestsPerToken: number;
    requestsBurst: number;
    failuresPerAddress: number;
    streamsPerOrg: number;
  };
  /** How much an org may have, unless its metadata says otherwise. */
  quotas: { runs: number; turns: number; watchers: number; devices: number; tokens: number };
};

type Settings = SettingsOf<typeof limitsSettings>;

export function limitsConfig(s: Settings): LimitsConfig {
  return {
    rates: {
      requestsPerToken: s.PINION_REQUESTS_PER_TOKEN,
      requestsBurst: s.PINION_REQUESTS_BURST,
      failuresPerAddress: s.PINION_FAILURES_PER_ADDRESS,
      streamsPerOrg: s.PINION_STREAMS_PER_ORG,
    },
    quotas: {
      runs: s.PINION_RUNS_PER_ORG,
      turns: s.PINION_TURNS_PER_ORG,
      watchers: s.PINION_WATCHERS_PER_ORG,
      devices: s.PINION_DEVICES_PER_ORG,
      tokens: s.PINION_TOKENS_PER_ORG,
    },
  };
}
