import type { ClaimedRun } from "../../../../src/store/work/runs/run-claims.ts";

const moment = new Date("2026-11-30T06:10:11.123Z");

/** A claimed run that asks nothing unusual of its device. */
export const plainRun: ClaimedRun = {
  orgId: "org-1",
  runId: crypto.randomUUID(),
  deviceId: crypto.randomUUID(),
  attemptToken: crypto.randomUUID(),
  attempt: 1,
  agentKind: "claude-code",
  notification: "on_failure",
  timeoutMs: 3_600_000,
  source: "scheduled",
  dueAt: moment,
  dueForMs: 1,
  scheduledFor: new Date("2026-11-30T06:00:00Z"),
  windowStart: new Date("2026-11-29T06:00:00Z"),
  windowEnd: moment,
  input: null,
  watcherId: crypto.randomUUID(),
  watcherVersion: 3,
  watcherSlug: "morning",
  watcherName: "Every morning",
  prompt: "Say hello",
  extractionSchema: null,
  agentWork: {},
  agentSession: null,
  agentId: "helper",
  agentVersion: 2,
  agentName: "Helper",
  agentSettings: {},
  priorWindow: null,
};
