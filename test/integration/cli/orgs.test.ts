/** `pinion orgs` and `pinion tokens rotate` against a real replica. */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { startTestReplica } from "../../support/server.ts";

const database = useDatabase();

test("an org is made, and members come, change and go, from the command line", async () => {
  const data = await mkdtemp(join(tmpdir(), "pinion-"));
  const replica = await startTestReplica(database.url);
  const as =
    (token: string) =>
    (...args: string[]) =>
      runCommand({ PINION_URL: replica.url, PINION_TOKEN: token, PINION_DATA: data }, ...args);
  const operator = as(replica.token);

  const made = await operator("orgs", "create", "acme", "--owner", "ada@acme.example", "--name", "Acme Ltd");
  expect(made.code).toBe(0);
  expect(made.err).toContain("owner of acme; keep it now");
  const ada = as(made.out.trim());
  expect((await operator("orgs", "create", "acme", "--owner", "x@x.example")).code).toBe(6);
  expect((await ada("orgs", "create", "other", "--owner", "x@x.example")).code).toBe(4);
  expect((await operator("orgs", "create", "Not An Id", "--owner", "x@x.example")).code).toBe(2);
  expect((await ada("orgs", "get")).out).toMatch(/^acme {2}Acme Ltd\ndefault agent {2}pinion-default\n/);

  const added = await ada("orgs", "add-member", "bob@acme.example", "--name", "Bob", "--scope", "read,write");
  expect(added).toMatchObject({ code: 0, out: expect.stringMatching(/^pin_pat_\w+\n$/) });
  const bob = as(added.out.trim());
  expect((await bob("orgs", "members")).out).toMatch(
    /ada@acme.example +owner[\s\S]*Bob +bob@acme.example +member/,
  );
  expect((await bob("orgs", "remove-member", "ada@acme.example")).code).toBe(4);
  expect((await ada("orgs", "remove-member", "ada@acme.example")).code).toBe(6);

  const { tokens } = JSON.parse((await bob("tokens", "list", "--json")).out);
  const his = tokens.find((token: { label: string }) => token.label === "first token");
  const rotated = await bob("tokens", "rotate", his.id, "--overlap", "1h");
  expect(rotated).toMatchObject({ code: 0, out: expect.stringMatching(/^pin_pat_\w+\n$/) });
  expect(rotated.err).toContain("the old one is good until");
  expect((await as(rotated.out.trim())("orgs", "get")).code).toBe(0);

  expect((await ada("orgs", "remove-member", "bob@acme.example")).out).toBe(
    "bob@acme.example is out: 2 tokens ended, 0 watchers unpinned, 0 runs cancelled\n",
  );
  expect((await bob("orgs", "get")).code).toBe(4);
  expect((await ada("orgs", "remove-member", "bob@acme.example")).code).toBe(5);
});
