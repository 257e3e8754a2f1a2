/**
 * Every field of an agent's output is either hidden or shown on purpose: a new field needs a
 * decision here.
 */
import { expect, test } from "vitest";
import {
  LateResultSchema,
  PastAttemptSchema,
  RunActivitySchema,
  RunOutputSchema,
  RunQuestionSchema,
  RunSchema,
  WindowSchema,
} from "#gen/pinion/v1/run_pb.js";
import { TurnSchema } from "#gen/pinion/v1/turn_pb.js";
import { hiddenFields } from "../../../src/server/access/redaction.ts";

/** Listed a second time, independently of the list of hidden fields. */
const shown = {
  Run: "id watcher_id watcher_slug watcher_version agent_id agent_version device_id agent_kind status skip_reason source scheduled_for window_start window_end attempt max_attempts timeout due_at created_at not_before start_deadline_at claimed_at pushed_at started_at last_beat_at cancel_requested_at finished_at reason exit_code signal duration window_id retry_of notification past_attempts attention usage workspace open_questions output_hidden origin is_reported",
  Window: "id watcher_id run_id window_start window_end created_at agent_kind usage attention output_hidden",
  RunQuestion:
    "run_id watcher_id watcher_slug device_id attempt state asked_at deadline_at answered_by answered_at responders output_hidden turn_id",
  LateResult: "attempt device_id outcome stored_at has_settled is_output_truncated exit_code signal duration",
  PastAttempt: "attempt claimed_at ended_at last_beat_at reason is_reported device_id",
  RunOutput: "sequence stream attempt device_id",
  RunActivity: "attempt device_id",
  Turn: "id agent_id agent_version conversation_id message_id run_id status is_reply_truncated reason is_retryable device_id holder_id attempt agent_kind timeout uses_snapshot snapshot_version exit_code duration created_at start_deadline_at claimed_at started_at last_beat_at deadline_at expires_at cancel_requested_at finished_at open_questions",
};

test("a field of a run, window, question, late result or turn is hidden from who may not read, or said to be for all", () => {
  for (const schema of [
    ...[RunSchema, WindowSchema, RunQuestionSchema, LateResultSchema, PastAttemptSchema, RunOutputSchema],
    ...[RunActivitySchema, TurnSchema],
  ]) {
    const name = schema.typeName.replace("pinion.v1.", "") as keyof typeof shown;
    const decided = [...hiddenFields.get(schema.typeName)!, ...shown[name].split(" ")];
    expect([name, decided.sort()]).toEqual([name, schema.fields.map((field) => field.name).sort()]);
  }
});
