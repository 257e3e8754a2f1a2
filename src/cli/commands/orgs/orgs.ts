import type { Command } from "commander";
import {
  AddMemberResponseSchema,
  CreateOrgResponseSchema,
  ListMembersResponseSchema,
  ListOrgsResponseSchema,
  type Member,
  type Org,
  OrgSchema,
  RemoveMemberResponseSchema,
} from "#gen/pinion/v1/org_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { told } from "../../failures.ts";
import { memberId } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { list, wholeNumber } from "../../print/paging.ts";
import { type Column, plain } from "../../print/table.ts";
import { formatAgo, formatMomentAgo } from "../../print/times.ts";
import * as words from "../../print/words.ts";
import { addMove } from "./org-move.ts";

/** `pinion orgs …`: orgs and their members. */
export function addOrgs(program: Command, cli: Cli): void {
  const orgs = program.command("orgs").description("orgs, and who belongs to them");
  addCreate(orgs, cli);
  addGet(orgs, cli);
  addList(orgs, cli);
  addMembers(orgs, cli);
  addAddMember(orgs, cli);
  addRemoveMember(orgs, cli);
  addMove(orgs, cli);
}

function addCreate(orgs: Command, cli: Cli): void {
  const command = orgs
    .command("create")
    .argument("<org-id>", "its id: a-z, 0-9 and -, at most 63 characters; it never changes")
    .description('make an org with its owner; only for admins of the operator\'s org, "local"')
    .requiredOption("--owner <email>", "the owner's email address")
    .option("--owner-name <name>", "the owner's name, if the person is new")
    .option("--name <name>", "shown to people; default: the id")
    .action(async (orgId: string, _options, command: Command) => {
      const { clients, options } = connect<{ owner: string; ownerName?: string; name?: string }>(
        cli,
        command,
      );
      const answer = await clients.orgs.createOrg({
        orgId,
        name: options.name ?? orgId,
        ownerEmail: options.owner,
        ownerName: options.ownerName ?? "",
      });
      if (options.json) return printJson(cli, CreateOrgResponseSchema, answer);
      cli.out(answer.secret);
      cli.note(
        `the token of ${options.owner}, owner of ${orgId}; keep it now, it is not shown again; it is good in ${orgId} alone`,
      );
    });
  examples(command, [
    ["orgs create acme --owner ada@acme.example", "an org, its owner, its default agent"],
    ["orgs create acme --owner ada@acme.example --name 'Acme Ltd'", "with a name"],
  ]);
}

function addGet(orgs: Command, cli: Cli): void {
  const command = orgs
    .command("get")
    .description("the org that your token belongs to")
    .action(async (_options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const org = told((await clients.orgs.getOrg({})).org, "org");
      if (options.json) return printJson(cli, OrgSchema, org);
      cli.out(`${org.id}  ${plain(org.name)}`);
      cli.out(`default agent  ${org.defaultAgentId || "none"}`);
      cli.out(`created        ${formatMomentAgo(org.createdAt)}`);
    });
  examples(command, [["orgs get", "where am I?"]]);
}

function addList(orgs: Command, cli: Cli): void {
  const command = orgs
    .command("list")
    .alias("ls")
    .description('list all orgs; only for admins of the operator\'s org, "local"')
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 100)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ limit: number }>(cli, command);
      await printList(cli, options, {
        schema: ListOrgsResponseSchema,
        field: "orgs",
        read: (request) => clients.orgs.listOrgs(request),
        columns: orgColumns,
      });
    });
  examples(command, [["orgs list", "who has a place here"]]);
}

const orgColumns: Column<Org>[] = [
  { header: "ID", cell: (org) => org.id },
  { header: "NAME", cell: (org) => plain(org.name), isFlexible: true },
  { header: "AGENT", cell: (org) => plain(org.defaultAgentId || "–") },
  { header: "MADE", cell: (org) => formatAgo(org.createdAt) },
];

function addMembers(orgs: Command, cli: Cli): void {
  const command = orgs
    .command("members")
    .description("list the members")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 100)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ limit: number }>(cli, command);
      await printList(cli, options, {
        schema: ListMembersResponseSchema,
        field: "members",
        read: (request) => clients.orgs.listMembers(request),
        columns: memberColumns,
      });
    });
  examples(command, [["orgs members", "who belongs to the org, and as what"]]);
}

const memberColumns: Column<Member>[] = [
  { header: "NAME", cell: (member) => plain(member.name), isFlexible: true },
  { header: "EMAIL", cell: (member) => plain(member.email) },
  { header: "ROLE", cell: (member) => words.memberRole.word(member.role) },
  { header: "SINCE", cell: (member) => formatAgo(member.createdAt) },
  { header: "ID", cell: (member) => member.userId },
];

function addAddMember(orgs: Command, cli: Cli): void {
  const command = orgs
    .command("add-member")
    .argument("<email>", "the person's email address")
    .description("take a person into the org, or give a member another role")
    .option("--name <name>", "the person's name, if the person is new")
    .option("--role <role>", "owner, admin or member", "member")
    .option(
      "--scope <scope>",
      "of a first token, which is printed, for who is no member yet: read, write and, of an owner or admin, admin; default: no token",
      list,
    )
    .option(
      "--keep-service-tokens",
      "with a weaker role: tokens of services that the person made keep what is above it",
    )
    .action(async (email: string, _options, command: Command) => {
      const { clients, options } = connect<{
        name?: string;
        role: string;
        scope?: string[];
        keepServiceTokens?: boolean;
      }>(cli, command);
      const answer = await clients.orgs.addMember({
        email,
        name: options.name ?? "",
        role: words.memberRole.value(options.role, "--role"),
        tokenScopes: options.scope ?? [],
        keepServiceTokens: options.keepServiceTokens ?? false,
      });
      if (options.json) return printJson(cli, AddMemberResponseSchema, answer);
      const member = told(answer.member, "member");
      if (answer.secret) cli.out(answer.secret);
      cli.note(
        `${plain(member.email)} is ${words.memberRole.word(member.role)} of the org` +
          (answer.secret ? "; keep the token now, it is not shown again" : "") +
          (answer.tokensCut > 0 ? `; ${answer.tokensCut} of their tokens may do less now` : "") +
          (answer.serviceTokensCut > 0
            ? `; ${answer.serviceTokensCut} tokens of services that they made may do less now`
            : "") +
          (answer.serviceTokensKept > 0
            ? `; ${answer.serviceTokensKept} tokens of services that they made stay as strong as they were`
            : ""),
      );
    });
  examples(command, [
    ["orgs add-member bob@acme.example --scope read,write", "with a token to hand over"],
    ["orgs add-member bob@acme.example --role owner", "another owner"],
  ]);
}

function addRemoveMember(orgs: Command, cli: Cli): void {
  const command = orgs
    .command("remove-member")
    .argument("<member>", "the person's email address or id")
    .description("take a person out: their tokens end, their devices lose their watchers and runs")
    .option("--revoke-service-tokens", "also end the tokens that they made for services")
    .action(async (named: string, _options, command: Command) => {
      const { clients, options } = connect<{ revokeServiceTokens?: boolean }>(cli, command);
      const answer = await clients.orgs.removeMember({
        userId: await memberId(clients, named),
        revokeServiceTokens: options.revokeServiceTokens ?? false,
      });
      if (options.json) return printJson(cli, RemoveMemberResponseSchema, answer);
      cli.out(
        `${plain(named)} is out: ${answer.tokensRevoked} tokens ended, ${answer.watchersUnpinned} watchers unpinned, ` +
          `${answer.runsCancelled} runs cancelled`,
      );
      if (answer.agentsHandedOver > 0) {
        cli.note(`${answer.agentsHandedOver} agents have the longest-standing owner as their owner now`);
      }
      if (answer.serviceTokensKept > 0) {
        cli.note(
          `${answer.serviceTokensKept} service tokens that they made are still good; \`pinion tokens list\` names their maker`,
        );
      }
    });
  examples(command, [["orgs remove-member bob@acme.example", "at once, on every replica"]]);
}
