import {
  AttentionReason,
  ContinueMode,
  QuestionDefault,
  QuestionResponders,
  WorkspaceMode,
} from "#gen/pinion/v1/activity_pb.js";
import { PlatformStatus, UpsertOutcome } from "#gen/pinion/v1/agent_pb.js";
import { DeliveryState, NotifyWhen } from "#gen/pinion/v1/destination_pb.js";
import { GrantPermission, Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { MemberRole, SecretHolder } from "#gen/pinion/v1/org_pb.js";
import {
  BulkState,
  Notification,
  QuestionState,
  RunSource,
  RunStatus,
  SkipReason,
  UsageGroup,
} from "#gen/pinion/v1/run_pb.js";
import { SignInMethod } from "#gen/pinion/v1/sign_in_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import {
  CatchupPolicy,
  GroupScope,
  OverlapPolicy,
  SpreadMode,
  WatcherStatus,
} from "#gen/pinion/v1/watcher_pb.js";
import { osEnum } from "../../server/enums.ts";
import type { Cli } from "../cli.ts";
import { exitCodes, Failure } from "../failures.ts";

/**
 * Enum values of the API as words of the command line. An unknown value of a newer server is shown
 * as its number.
 */
type Words = { word(value: number): string; value(word: string, option: string): number; all: string[] };

function words(names: Record<number, string>): Words {
  const entries = Object.entries(names).map(([value, name]) => [Number(value), name] as const);
  const all = entries.map(([, name]) => name);
  return {
    all,
    word: (value) => (value === 0 ? "" : (names[value] ?? String(value))),
    value: (word, option) => {
      const wanted = word.toLowerCase().replaceAll("-", "_");
      const found = entries.find(([, name]) => name === wanted);
      if (!found) throw new Failure(exitCodes.usage, `${option}: "${word}" is none of ${all.join(", ")}`);
      return found[0];
    },
  };
}

export const runStatus = words({
  [RunStatus.PENDING]: "pending",
  [RunStatus.CLAIMED]: "claimed",
  [RunStatus.RUNNING]: "running",
  [RunStatus.COMPLETED]: "completed",
  [RunStatus.FAILED]: "failed",
  [RunStatus.TIMEOUT]: "timeout",
  [RunStatus.CANCELLED]: "cancelled",
  [RunStatus.SKIPPED]: "skipped",
});

export const turnStatus = words({
  [TurnStatus.PENDING]: "pending",
  [TurnStatus.CLAIMED]: "claimed",
  [TurnStatus.RUNNING]: "running",
  [TurnStatus.COMPLETED]: "completed",
  [TurnStatus.FAILED]: "failed",
  [TurnStatus.TIMEOUT]: "timeout",
  [TurnStatus.CANCELLED]: "cancelled",
});

export const attention = words({
  [AttentionReason.PERMISSION_DENIED]: "permission_denied",
  [AttentionReason.REFUSAL]: "refusal",
  [AttentionReason.ANSWER_CUT]: "answer_cut",
  [AttentionReason.MAX_TURNS]: "max_turns",
  [AttentionReason.MAX_TOKENS]: "max_tokens",
  [AttentionReason.BUDGET]: "budget",
  [AttentionReason.SCHEMA]: "schema",
  [AttentionReason.QUESTION_EXPIRED]: "question_expired",
  [AttentionReason.NOT_ENFORCED]: "not_enforced",
  [AttentionReason.SESSION_GONE]: "session_gone",
  [AttentionReason.NO_ANSWER]: "no_answer",
});

export const questionState = words({
  [QuestionState.OPEN]: "open",
  [QuestionState.ANSWERED]: "answered",
  [QuestionState.EXPIRED]: "expired",
  [QuestionState.WITHDRAWN]: "withdrawn",
});

export const questionDefault = words({
  [QuestionDefault.DENY]: "deny",
  [QuestionDefault.ALLOW]: "allow",
});

export const questionResponders = words({
  [QuestionResponders.USERS]: "users",
  [QuestionResponders.DEVICE_OWNER]: "device_owner",
  [QuestionResponders.ADMINS]: "admins",
});

export const notifyWhen = words({
  [NotifyWhen.ALWAYS]: "always",
  [NotifyWhen.FAILURE]: "failure",
  [NotifyWhen.RECOVERY]: "recovery",
  [NotifyWhen.CHANGE]: "change",
  [NotifyWhen.ATTENTION]: "attention",
  [NotifyWhen.QUESTION]: "question",
});

export const deliveryState = words({
  [DeliveryState.PENDING]: "pending",
  [DeliveryState.DELIVERED]: "delivered",
  [DeliveryState.DEAD]: "dead",
});

export const continueMode = words({
  [ContinueMode.FRESH]: "fresh",
  [ContinueMode.SESSION]: "session",
});

export const workspaceMode = words({
  [WorkspaceMode.SHARED]: "shared",
  [WorkspaceMode.WORKTREE]: "worktree",
  [WorkspaceMode.COPY]: "copy",
  [WorkspaceMode.EMPTY]: "empty",
});

export const usageGroup = words({
  [UsageGroup.WATCHER]: "watcher",
  [UsageGroup.AGENT]: "agent",
  [UsageGroup.DEVICE]: "device",
  [UsageGroup.DAY]: "day",
});

export const memberRole = words({
  [MemberRole.OWNER]: "owner",
  [MemberRole.ADMIN]: "admin",
  [MemberRole.MEMBER]: "member",
});

export const secretHolder = words({
  [SecretHolder.PLATFORM]: "platform",
  [SecretHolder.DESTINATION]: "destination",
  [SecretHolder.HOOK]: "hook",
});

export const skipReason = words({
  [SkipReason.OVERLAP]: "overlap",
  [SkipReason.COOLDOWN]: "cooldown",
  [SkipReason.MISSED]: "missed",
  [SkipReason.OFFLINE_EXPIRED]: "offline_expired",
  [SkipReason.NO_EXECUTOR]: "no_executor",
  [SkipReason.LIMIT]: "limit",
  [SkipReason.BUDGET]: "budget",
});

export const runSource = words({
  [RunSource.SCHEDULED]: "scheduled",
  [RunSource.MANUAL]: "manual",
  [RunSource.BACKFILL]: "backfill",
  [RunSource.HOOK]: "hook",
  [RunSource.AFTER]: "after",
});

export const notification = words({
  [Notification.NONE]: "none",
  [Notification.ON_FAILURE]: "on_failure",
  [Notification.ALWAYS]: "always",
});

export const bulkState = words({
  [BulkState.RUNNING]: "running",
  [BulkState.FINISHED]: "finished",
  [BulkState.STOPPED]: "stopped",
});

export const spreadMode = words({ [SpreadMode.ONE]: "one", [SpreadMode.ALL]: "all" });

export const groupScope = words({ [GroupScope.ORG]: "org", [GroupScope.DEVICE]: "device" });

export const overlapPolicy = words({
  [OverlapPolicy.SKIP]: "skip",
  [OverlapPolicy.QUEUE_ONE]: "queue_one",
  [OverlapPolicy.QUEUE_ALL]: "queue_all",
});

export const catchupPolicy = words({ [CatchupPolicy.COLLAPSE]: "collapse", [CatchupPolicy.MISS]: "miss" });

export const watcherStatus = words({
  [WatcherStatus.ACTIVE]: "active",
  [WatcherStatus.PAUSED]: "paused",
  [WatcherStatus.NO_EXECUTOR]: "no_executor",
  [WatcherStatus.RESTING]: "resting",
});

export const liveness = words({
  [Liveness.ONLINE]: "online",
  [Liveness.UNSTEADY]: "unsteady",
  [Liveness.OFFLINE]: "offline",
  [Liveness.NEVER]: "never",
});

export const os = words(Object.fromEntries(Object.entries(osEnum).map(([name, os]) => [os, name])));

export const tokenKind = words({
  [TokenKind.PAT]: "pat",
  [TokenKind.DEV]: "dev",
  [TokenKind.SVC]: "svc",
});

export const signInMethod = words({
  [SignInMethod.LINK]: "link",
  [SignInMethod.TOKEN]: "token",
  [SignInMethod.OIDC]: "oidc",
});

export const grantPermission = words({
  [GrantPermission.USE]: "use",
  [GrantPermission.MANAGE]: "manage",
  [GrantPermission.READ]: "read",
});

export const platformStatus = words({
  [PlatformStatus.STOPPED]: "stopped",
  [PlatformStatus.STARTING]: "starting",
  [PlatformStatus.RUNNING]: "running",
  [PlatformStatus.FAILED]: "failed",
});

export const upsertOutcome = words({
  [UpsertOutcome.CREATED]: "created",
  [UpsertOutcome.UPDATED]: "updated",
  [UpsertOutcome.NOOP]: "noop",
});

const good = new Set(["completed", "active", "online", "delivered"]);
const bad = new Set(["failed", "timeout", "no_executor", "dead"]);
const waiting = new Set(["pending", "claimed", "paused", "unsteady"]);

/** Colours a state by its need for attention. */
export function paintState(cli: Cli, word: string): string {
  if (good.has(word)) return cli.colors.green(word);
  if (bad.has(word)) return cli.colors.red(word);
  if (waiting.has(word)) return cli.colors.yellow(word);
  if (word === "running") return cli.colors.cyan(word);
  return cli.colors.dim(word);
}
