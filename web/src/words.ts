/** Enum values of the API in words, as in the command line and the tables, and their tones. */
import {
  AttentionReason,
  ContinueMode,
  QuestionDefault,
  QuestionResponders,
  WorkspaceMode,
} from "#gen/pinion/v1/activity_pb.js";
import { Os, UpgradeMode } from "#gen/pinion/v1/device_pb.js";
import { GrantPermission, Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { Notification, RunSource, RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import { TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import { CatchupPolicy, OverlapPolicy, WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";

export type Tone = "good" | "bad" | "wait" | "busy" | "quiet";

const runWords: Record<RunStatus, string> = {
  [RunStatus.UNSPECIFIED]: "unknown",
  [RunStatus.PENDING]: "pending",
  [RunStatus.CLAIMED]: "claimed",
  [RunStatus.RUNNING]: "running",
  [RunStatus.COMPLETED]: "completed",
  [RunStatus.FAILED]: "failed",
  [RunStatus.TIMEOUT]: "timeout",
  [RunStatus.CANCELLED]: "cancelled",
  [RunStatus.SKIPPED]: "skipped",
};
const livenessWords: Record<Liveness, string> = {
  [Liveness.UNSPECIFIED]: "unknown",
  [Liveness.ONLINE]: "online",
  [Liveness.UNSTEADY]: "unsteady",
  [Liveness.OFFLINE]: "offline",
  [Liveness.NEVER]: "never",
};
const watcherWords: Record<WatcherStatus, string> = {
  [WatcherStatus.UNSPECIFIED]: "unknown",
  [WatcherStatus.ACTIVE]: "active",
  [WatcherStatus.PAUSED]: "paused",
  [WatcherStatus.NO_EXECUTOR]: "no executor",
  [WatcherStatus.RESTING]: "resting",
};
const osWords: Record<Os, string> = {
  [Os.UNSPECIFIED]: "unknown",
  [Os.MACOS]: "macos",
  [Os.LINUX]: "linux",
  [Os.WINDOWS]: "windows",
  [Os.IOS]: "ios",
  [Os.ANDROID]: "android",
  [Os.BROWSER]: "browser",
};
const upgradeWords: Record<UpgradeMode, string> = {
  [UpgradeMode.UNSPECIFIED]: "",
  [UpgradeMode.MANUAL]: "upgraded by hand",
  [UpgradeMode.AUTOMATIC]: "upgrades itself",
  [UpgradeMode.UNAVAILABLE]: "upgraded by its package",
};
const skipWords: Record<SkipReason, string> = {
  [SkipReason.UNSPECIFIED]: "",
  [SkipReason.OVERLAP]: "overlap",
  [SkipReason.COOLDOWN]: "cooldown",
  [SkipReason.MISSED]: "missed",
  [SkipReason.OFFLINE_EXPIRED]: "offline expired",
  [SkipReason.NO_EXECUTOR]: "no executor",
  [SkipReason.LIMIT]: "limit of the org",
  [SkipReason.BUDGET]: "budget of the day",
};
const attentionWords: Record<AttentionReason, string> = {
  [AttentionReason.UNSPECIFIED]: "",
  [AttentionReason.PERMISSION_DENIED]: "a tool was not permitted",
  [AttentionReason.REFUSAL]: "the model refused",
  [AttentionReason.ANSWER_CUT]: "the answer was cut",
  [AttentionReason.MAX_TURNS]: "the agent stopped at its greatest number of turns",
  [AttentionReason.MAX_TOKENS]: "the model stopped at its greatest number of tokens",
  [AttentionReason.BUDGET]: "the agent was stopped at its budget",
  [AttentionReason.SCHEMA]: "the answer does not match the schema",
  [AttentionReason.QUESTION_EXPIRED]: "nobody answered a question in time",
  [AttentionReason.NOT_ENFORCED]: "a setting was not enforced",
  [AttentionReason.SESSION_GONE]: "the session to go on in was gone",
  [AttentionReason.NO_ANSWER]: "the agent ended without an answer",
};
const sourceWords: Record<RunSource, string> = {
  [RunSource.UNSPECIFIED]: "",
  [RunSource.SCHEDULED]: "scheduled",
  [RunSource.MANUAL]: "manual",
  [RunSource.BACKFILL]: "backfill",
  [RunSource.HOOK]: "hook",
  [RunSource.AFTER]: "after",
};

const roleWords: Record<MemberRole, string> = {
  [MemberRole.UNSPECIFIED]: "service",
  [MemberRole.OWNER]: "owner",
  [MemberRole.ADMIN]: "admin",
  [MemberRole.MEMBER]: "member",
};

const permissionWords: Record<GrantPermission, string> = {
  [GrantPermission.UNSPECIFIED]: "",
  [GrantPermission.USE]: "use it",
  [GrantPermission.MANAGE]: "manage it",
  [GrantPermission.READ]: "read what its runs say",
};

const turnWords: Record<TurnStatus, string> = {
  [TurnStatus.UNSPECIFIED]: "unknown",
  [TurnStatus.PENDING]: "pending",
  [TurnStatus.CLAIMED]: "claimed",
  [TurnStatus.RUNNING]: "answering",
  [TurnStatus.COMPLETED]: "completed",
  [TurnStatus.FAILED]: "failed",
  [TurnStatus.TIMEOUT]: "timeout",
  [TurnStatus.CANCELLED]: "cancelled",
};

/** An unknown value of a newer server is shown as its number. */
const word = (words: Record<number, string>) => (value: number) => words[value] ?? String(value);

export const runWord = word(runWords);
export const livenessWord = word(livenessWords);
export const watcherWord = word(watcherWords);
export const upgradeWord = word(upgradeWords);
export const osWord = word(osWords);
export const skipWord = word(skipWords);
export const attentionWord = word(attentionWords);
export const workspaceModeWord = word({
  [WorkspaceMode.UNSPECIFIED]: "",
  [WorkspaceMode.SHARED]: "shared: runs work in the folder itself",
  [WorkspaceMode.WORKTREE]: "a git worktree for each run",
  [WorkspaceMode.COPY]: "a copy for each run",
  [WorkspaceMode.EMPTY]: "an empty folder for each run",
});
export const permissionWord = word(permissionWords);
export const turnWord = word(turnWords);
export const roleWord = word(roleWords);
export const sourceWord = word(sourceWords);

/** Attention reasons with the names used in addresses. */
export const attentionReasons = Object.entries(attentionWords)
  .map(([value, label]) => ({ reason: Number(value) as AttentionReason, label }))
  .filter(({ reason }) => reason !== AttentionReason.UNSPECIFIED)
  .map((each) => ({ ...each, name: (AttentionReason[each.reason] ?? "").toLowerCase() }));

export const runStatuses = Object.entries(runWords)
  .map(([value, name]) => ({ status: Number(value) as RunStatus, name }))
  .filter(({ status }) => status !== RunStatus.UNSPECIFIED);

const tones: Record<string, Tone> = {
  completed: "good",
  active: "good",
  online: "good",
  failed: "bad",
  timeout: "bad",
  "no executor": "bad",
  pending: "wait",
  claimed: "wait",
  paused: "wait",
  unsteady: "wait",
  running: "busy",
};

export const toneOf = (status: string): Tone => tones[status] ?? "quiet";

export const overlapChoices = [
  { value: OverlapPolicy.SKIP, label: "skip the slot" },
  { value: OverlapPolicy.QUEUE_ONE, label: "queue the latest" },
  { value: OverlapPolicy.QUEUE_ALL, label: "queue all" },
];
export const catchupChoices = [
  { value: CatchupPolicy.COLLAPSE, label: "one run for all" },
  { value: CatchupPolicy.MISS, label: "record as missed" },
];
export const continueChoices = [
  { value: ContinueMode.FRESH, label: "a fresh one" },
  { value: ContinueMode.SESSION, label: "the one of its last run" },
];
export const defaultChoices = [
  { value: QuestionDefault.DENY, label: "deny" },
  { value: QuestionDefault.ALLOW, label: "allow once" },
];
export const responderChoices = [
  { value: QuestionResponders.USERS, label: "everyone who may trigger it" },
  { value: QuestionResponders.DEVICE_OWNER, label: "the device’s owner" },
  { value: QuestionResponders.ADMINS, label: "admins of the org" },
];
export const notificationChoices = [
  { value: Notification.NONE, label: "none" },
  { value: Notification.ON_FAILURE, label: "on failure" },
  { value: Notification.ALWAYS, label: "always" },
];

/** An executor's name and version; the version text often begins with the name. */
export function programText({ type, version }: { type: string; version: string }): string {
  const plain = (text: string) => text.toLowerCase().replaceAll("-", " ");
  return plain(version).includes(plain(type)) ? version : [type, version].filter(Boolean).join(" ");
}
