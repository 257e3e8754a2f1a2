import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import type { Json } from "../../pg/schema/schema-columns.ts";
import { storableJson, storableText } from "../../pg/values/storable.ts";
import { unnest } from "../../pg/values/unnest.ts";

/**
 * Reports: an attempt's agent's statements about its work beside the output. Runs without a
 * reporting agent have none.
 */

/** The consumption of an attempt; undefined: the agent does not report it. */
export type UsageCounts = {
  inputTokens: number;
  outputTokens: number;
  cachedInputTokens: number;
  /** Millionths of a US dollar, by the agent's own figure. */
  costMicros: number | undefined;
};

export type AgentReport = {
  /** The final answer; empty: the executor knows none. */
  result: string;
  /** The answer as data. */
  structured: unknown;
  /** Names of AttentionReason in lower case, without their prefix. */
  attention: readonly string[];
  /** The agent's own id of its session; empty: none is kept. */
  sessionId: string;
  /** The other fields of Completion that people read, as JSON. */
  facts: Json;
  usage: UsageCounts | undefined;
  /** A protobuf Transcript. */
  transcript: Uint8Array | undefined;
};

export type EndedReport = {
  orgId: string;
  runId: string;
  attemptToken: string;
  watcherId: string;
  agentId: string;
  deviceId: string | null;
  /** The answer is stored in the run's window already. */
  hasWindow: boolean;
  report: AgentReport;
};

const nilId = "00000000-0000-0000-0000-000000000000";

/**
 * Stores reports of runs that ended in the same transaction, and adds their consumption to the
 * day's sums. A day's sums are locked in one order until the commit.
 */
export async function store(tx: Db, ended: readonly EndedReport[]): Promise<void> {
  if (ended.length === 0) return;
  const input = unnest("i", ended, {
    org_id: ["text", (e) => e.orgId],
    run_id: ["uuid", (e) => e.runId],
    token: ["uuid", (e) => e.attemptToken],
    result: ["text", (e) => (e.hasWindow ? "" : storableText(e.report.result))],
    structured: [
      "text",
      (e) =>
        e.hasWindow ? null : e.report.structured === undefined ? null : storableJson(e.report.structured),
    ],
    attention: ["text", (e) => JSON.stringify(e.report.attention)],
    session_id: ["text", (e) => storableText(e.report.sessionId)],
    facts: ["text", (e) => storableJson(e.report.facts)],
    transcript: ["text", (e) => e.report.transcript && Buffer.from(e.report.transcript).toString("base64")],
  });
  await sql`
    insert into run_report (org_id, run_id, attempt_token, result, structured, attention, session_id, facts, transcript)
    select org_id, run_id, token, result, structured::jsonb,
      array(select jsonb_array_elements_text(attention::jsonb)), session_id, facts::jsonb, decode(transcript, 'base64')
    from ${input}
  `.execute(tx);

  const used = ended.flatMap((e) => (e.report.usage ? [{ ...e, usage: e.report.usage }] : []));
  if (used.length === 0) return;
  const usage = unnest("i", used, {
    org_id: ["text", (e) => e.orgId],
    watcher_id: ["uuid", (e) => e.watcherId],
    agent_id: ["text", (e) => e.agentId],
    device_id: ["uuid", (e) => e.deviceId ?? nilId],
    input_tokens: ["bigint", (e) => e.usage.inputTokens],
    output_tokens: ["bigint", (e) => e.usage.outputTokens],
    cached_input_tokens: ["bigint", (e) => e.usage.cachedInputTokens],
    cost_micros: ["bigint", (e) => e.usage.costMicros ?? null],
  });
  await sql`
    insert into usage_day as u (org_id, day, watcher_id, agent_id, device_id, runs, input_tokens, output_tokens,
      cached_input_tokens, cost_micros, runs_with_cost)
    select org_id, (now() at time zone 'UTC')::date, watcher_id, agent_id, device_id, count(*), sum(input_tokens),
      sum(output_tokens), sum(cached_input_tokens), coalesce(sum(cost_micros), 0), count(cost_micros)
    from ${usage}
    group by org_id, watcher_id, agent_id, device_id
    order by org_id, watcher_id, agent_id, device_id
    on conflict (org_id, watcher_id, day, agent_id, device_id) do update set runs = u.runs + excluded.runs,
      input_tokens = u.input_tokens + excluded.input_tokens, output_tokens = u.output_tokens + excluded.output_tokens,
      cached_input_tokens = u.cached_input_tokens + excluded.cached_input_tokens,
      cost_micros = u.cost_micros + excluded.cost_micros, runs_with_cost = u.runs_with_cost + excluded.runs_with_cost
  `.execute(tx);
}

export type ReportRow = {
  runId: string;
  result: string;
  structured: unknown;
  attention: string[];
  sessionId: string;
  facts: Json;
  hasTranscript: boolean;
};

/** Bound in ms on a report before the end of its run: they are stored in one transaction. */
const reportAheadMsMax = 3_600_000;

/**
 * The reports of runs, by run id; runs without a report are absent. `ends`: when the runs ended, as
 * far as known; days before the first end are not looked at.
 */
export async function findAll(
  db: Db,
  runs: { orgId: string; runIds: readonly string[]; ends?: readonly (Date | null)[] },
): Promise<Map<string, ReportRow>> {
  if (runs.runIds.length === 0) return new Map();
  const ends = (runs.ends ?? []).map((end) => end?.getTime() ?? 0);
  const since = ends.length === 0 ? 0 : Math.max(0, Math.min(...ends) - reportAheadMsMax);
  const { rows } = await sql<ReportRow>`
    select run_id as "runId", result, structured, attention, session_id as "sessionId", facts,
      transcript is not null as "hasTranscript"
    from run_report where org_id = ${runs.orgId} and run_id = any(${runs.runIds as string[]}::uuid[])
      and finished_at >= ${new Date(since)}
    -- A late result may have settled a run again: the last report is the one that counts.
    order by finished_at
  `.execute(db);
  return new Map(rows.map((row) => [row.runId, row]));
}

/** The transcript of a run, as a protobuf Transcript. */
export async function findTranscript(
  db: Db,
  run: { orgId: string; runId: string },
): Promise<Uint8Array | undefined> {
  const { rows } = await sql<{ transcript: Buffer | null }>`
    select transcript from run_report where org_id = ${run.orgId} and run_id = ${run.runId}
  `.execute(db);
  return rows[0]?.transcript ?? undefined;
}
