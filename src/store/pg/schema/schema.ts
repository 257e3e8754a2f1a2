/** The tables of src/store/pg/migrations for Kysely, as far as queries are built with it. */
import type {
  DeviceGrantTable,
  DevicePastTable,
  DeviceTable,
  JoinCodeTable,
  MemberTable,
  OrgTable,
  RequestTable,
  SignInCodeTable,
  SignInTable,
  TokenTable,
  UserIdentityTable,
  UserTable,
} from "./schema-people.ts";
import type {
  AgentRevisionTable,
  AgentTable,
  BacklogTable,
  EventRowTable,
  EventTable,
  PlatformTable,
  PresenceTable,
  ReplicaTable,
  RunFinishedTable,
  RunTable,
  SchedulePositionTable,
  SlotTable,
  WatcherRevisionTable,
  WatcherTable,
  WindowTable,
} from "./schema-work.ts";

export type Schema = {
  org: OrgTable;
  user: UserTable;
  member: MemberTable;
  device: DeviceTable;
  token: TokenTable;
  sign_in: SignInTable;
  sign_in_code: SignInCodeTable;
  user_identity: UserIdentityTable;
  join_code: JoinCodeTable;
  device_grant: DeviceGrantTable;
  device_past: DevicePastTable;
  replica: ReplicaTable;
  presence: PresenceTable;
  agent: AgentTable;
  agent_revision: AgentRevisionTable;
  platform: PlatformTable;
  watcher: WatcherTable;
  schedule_position: SchedulePositionTable;
  watcher_revision: WatcherRevisionTable;
  backlog: BacklogTable;
  slot: SlotTable;
  run: RunTable;
  run_finished: RunFinishedTable;
  window: WindowTable;
  event: EventTable;
  event_row: EventRowTable;
  request: RequestTable;
};
