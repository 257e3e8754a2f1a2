/** The tables of orgs and people, and of their devices and credentials. */
import type { ColumnType, Generated, Selectable } from "kysely";
import type {
  GeneratedJsonObject,
  GeneratedTimestamp,
  Json,
  JsonObject,
  OrNull,
  Timestamp,
  TimestampOrNull,
} from "./schema-columns.ts";

export type Role = "owner" | "admin" | "member";
export type TokenKind = "pat" | "dev" | "svc";

export type OrgTable = {
  id: string;
  name: string;
  metadata: GeneratedJsonObject<Json>;
  default_agent_id: OrNull<string>;
  events_deleted_through: Generated<number>;
  created_at: GeneratedTimestamp;
};

export type UserTable = {
  id: Generated<string>;
  name: string;
  email: OrNull<string>;
  created_at: GeneratedTimestamp;
};

export type MemberTable = {
  org_id: string;
  user_id: string;
  role: Role;
  created_at: GeneratedTimestamp;
};

export type DeviceTable = {
  org_id: string;
  id: Generated<string>;
  owner_id: OrNull<string>;
  install_id: string;
  os: string;
  label: string;
  app_version: Generated<string>;
  agent_kinds: Generated<string[]>;
  capabilities: Generated<string[]>;
  max_concurrency: Generated<number>;
  /** JSON of ExecutorInfo and WorkspaceInfo. */
  executors: ColumnType<Json[], string | undefined, string>;
  workspaces: ColumnType<Json[], string | undefined, string>;
  config_problem: Generated<string>;
  /** [{from, to}], times in ISO 8601, oldest first. */
  absences: ColumnType<Json[], string | undefined, string>;
  /** JSON of UpgradeInfo. */
  upgrade: ColumnType<Json | null, string | null | undefined, string | null>;
  /** {machineHash, bootHash, hostName, arch} of the last session; empty before the first report. */
  machine: ColumnType<Json, string | undefined, string>;
  /** {hostName, seenAt}. */
  duplicate: ColumnType<Json | null, string | null | undefined, string | null>;
  created_at: GeneratedTimestamp;
  is_worker: Generated<boolean>;
  token_id: OrNull<string>;
  /** Given by people, sorted. */
  labels: Generated<string[]>;
};

export type TokenTable = {
  org_id: string;
  id: Generated<string>;
  kind: TokenKind;
  label: string;
  sha256: Buffer;
  scopes: string[];
  user_id: OrNull<string>;
  device_id: OrNull<string>;
  created_at: GeneratedTimestamp;
  expires_at: TimestampOrNull;
  last_used_at: TimestampOrNull;
  revoked_at: TimestampOrNull;
  rotated_at: TimestampOrNull;
  creator_id: OrNull<string>;
  predecessor_id: OrNull<string>;
  all_devices: Generated<boolean>;
};

export type SignInMethod = "link" | "token" | "oidc";
export type SignInCodeKind = "link" | "login" | "oidc";

export type SignInTable = {
  org_id: string;
  token_id: string;
  method: SignInMethod;
  maker_id: OrNull<string>;
  address: string;
  user_agent: string;
};

export type SignInCodeTable = {
  sha256: Buffer;
  kind: SignInCodeKind;
  user_code: OrNull<string>;
  address: string;
  data: JsonObject<Json>;
  created_at: GeneratedTimestamp;
  expires_at: Timestamp;
  used_at: TimestampOrNull;
};

export type UserIdentityTable = {
  issuer: string;
  subject: string;
  user_id: string;
  created_at: GeneratedTimestamp;
};

export type DeviceGrantTable = {
  org_id: string;
  id: Generated<string>;
  device_id: string;
  permission: "use" | "manage" | "read";
  user_id: OrNull<string>;
  token_id: OrNull<string>;
  granted_by: string;
  created_at: GeneratedTimestamp;
  first_used_at: TimestampOrNull;
};

export type DevicePastTable = {
  org_id: string;
  device_id: string;
  label: string;
  owner_id: OrNull<string>;
  deleted_at: GeneratedTimestamp;
};

export type JoinCodeTable = {
  org_id: string;
  sha256: Buffer;
  user_id: OrNull<string>;
  token_id: OrNull<string>;
  created_at: GeneratedTimestamp;
  expires_at: Timestamp;
  used_at: TimestampOrNull;
};

/** A write with a request_id; see requests.ts. */
export type RequestTable = {
  org_id: string;
  actor: string;
  rpc: string;
  id: string;
  made: ColumnType<Json | null, Json | string | null | undefined, Json | string | null>;
  created_at: GeneratedTimestamp;
};

export type DeviceRow = Selectable<DeviceTable>;
export type TokenRow = Selectable<TokenTable>;
