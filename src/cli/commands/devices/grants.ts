import { create } from "@bufbuild/protobuf";
import type { Command } from "commander";
import {
  type Grant,
  GrantDeviceResponseSchema,
  type Grantee,
  GranteeSchema,
  GrantPermission,
  ListGrantsResponseSchema,
  RevokeGrantResponseSchema,
} from "#gen/pinion/v1/fleet_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { type Clients, connect } from "../../context.ts";
import { exitCodes, Failure } from "../../failures.ts";
import { deviceId, memberId } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { wholeNumber } from "../../print/paging.ts";
import { type Column, plain } from "../../print/table.ts";
import { formatAgo } from "../../print/times.ts";

/** `pinion devices grant|revoke|grants`: permissions given by device owners to others. */
export function addGrants(devices: Command, cli: Cli): void {
  addGrant(devices, cli);
  addRevoke(devices, cli);
  addList(devices, cli);
}

type Asked = {
  to?: string;
  everyone?: boolean;
  service?: string;
  use?: boolean;
  manage?: boolean;
  read?: boolean;
};

function withGrantee(command: Command): Command {
  return command
    .option("--to <member>", "a member, by email address or user id")
    .option("--everyone", "every member of the org")
    .option("--service <token-id>", "a service, by its token's id")
    .option("--use", "pin watchers to it, trigger, edit and retry what is pinned")
    .option("--manage", "rename and disconnect it")
    .option("--read", "read what its runs say: output, results, transcripts");
}

async function granteeOf(clients: Clients, asked: Asked): Promise<Grantee> {
  const given = [asked.to, asked.everyone, asked.service].filter((value) => value !== undefined);
  if (given.length !== 1) {
    throw new Failure(
      exitCodes.usage,
      "say for whom",
      "one of --to <member>, --everyone and --service <token-id>",
    );
  }
  if (asked.to !== undefined) {
    return create(GranteeSchema, { kind: { case: "userId", value: await memberId(clients, asked.to) } });
  }
  if (asked.service !== undefined) {
    return create(GranteeSchema, { kind: { case: "tokenId", value: asked.service } });
  }
  return create(GranteeSchema, { kind: { case: "everyone", value: true } });
}

function permissionsOf({ use, manage, read }: Asked): GrantPermission[] {
  return [
    ...(use ? [GrantPermission.USE] : []),
    ...(manage ? [GrantPermission.MANAGE] : []),
    ...(read ? [GrantPermission.READ] : []),
  ];
}

function addGrant(devices: Command, cli: Cli): void {
  const command = withGrantee(
    devices
      .command("grant")
      .argument("<device>", "id or label")
      .description("let a member, everyone or a service use, manage or read a device of yours"),
  ).action(async (named: string, _options, command: Command) => {
    const { clients, options } = connect<Asked>(cli, command);
    const permissions = permissionsOf(options);
    if (permissions.length === 0) {
      throw new Failure(
        exitCodes.usage,
        "say what to let them do",
        "at least one of --use, --manage and --read",
      );
    }
    const grantee = await granteeOf(clients, options);
    const answer = await clients.fleet.grantDevice({
      deviceId: await deviceId(clients, named),
      grantee,
      permissions,
    });
    if (options.json) return printJson(cli, GrantDeviceResponseSchema, answer);
    for (const grant of answer.grants)
      cli.out(`${whoOf(grant)} may ${verbOf(grant)} ${plain(grant.deviceLabel)}`);
  });
  examples(command, [
    ["devices grant mac-7 --to ada@example.org --use --read", "a colleague"],
    ["devices grant lab-box --everyone --use", "a machine that all share"],
  ]);
}

function addRevoke(devices: Command, cli: Cli): void {
  const command = withGrantee(
    devices
      .command("revoke")
      .argument("<device>", "id or label")
      .description("take grants on a device back; what stands on them is paused, and its runs are cancelled"),
  ).action(async (named: string, _options, command: Command) => {
    const { clients, options } = connect<Asked>(cli, command);
    const answer = await clients.fleet.revokeGrant({
      deviceId: await deviceId(clients, named),
      grantee: await granteeOf(clients, options),
      permissions: permissionsOf(options),
    });
    if (options.json) return printJson(cli, RevokeGrantResponseSchema, answer);
    for (const grant of answer.grants) {
      cli.out(`${whoOf(grant)} may not ${verbOf(grant)} ${plain(grant.deviceLabel)} any more by this grant`);
    }
    if (answer.watchersPaused > 0) {
      cli.note(
        `${answer.watchersPaused} watchers are paused (pinion watchers list says why), ${answer.runsCancelled} runs cancelled`,
      );
    }
  });
  examples(command, [
    ["devices revoke mac-7 --to ada@example.org", "all that she was granted"],
    ["devices revoke mac-7 --everyone --use", "one permission"],
  ]);
}

function addList(devices: Command, cli: Cli): void {
  const command = devices
    .command("grants")
    .argument("[device]", "id or label; all devices without it")
    .description("list what owners let others do with their devices")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 200)
    .action(async (named: string | undefined, _options, command: Command) => {
      const { clients, options } = connect<{ limit: number }>(cli, command);
      const filter = named === undefined ? {} : { deviceId: await deviceId(clients, named) };
      await printList(cli, options, {
        schema: ListGrantsResponseSchema,
        field: "grants",
        read: (request) => clients.fleet.listGrants({ ...request, ...filter }),
        none: "no grants; `pinion devices grant` makes one",
        columns: columns,
      });
    });
  examples(command, [["devices grants mac-7", "who may do what with it"]]);
}

const columns: Column<Grant>[] = [
  { header: "DEVICE", cell: (grant) => plain(grant.deviceLabel), isFlexible: true },
  { header: "WHO", cell: whoOf },
  { header: "MAY", cell: verbOf },
  { header: "GRANTED", cell: (grant) => formatAgo(grant.createdAt) },
  { header: "FIRST USED", cell: (grant) => formatAgo(grant.firstUsedAt) || "never" },
];

function whoOf({ grantee, granteeName }: Grant): string {
  const kind = grantee?.kind.case;
  if (kind === "everyone") return "everyone";
  return kind === "tokenId" ? `service ${plain(granteeName)}` : plain(granteeName);
}

const verbs: Record<GrantPermission, string> = {
  [GrantPermission.UNSPECIFIED]: "do nothing with",
  [GrantPermission.USE]: "use",
  [GrantPermission.MANAGE]: "manage",
  [GrantPermission.READ]: "read",
};

function verbOf({ permission }: Grant): string {
  return verbs[permission];
}
