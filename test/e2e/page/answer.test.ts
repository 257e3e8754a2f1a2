/**
 * The answer of an agent on the web page: rendered as an answer, harmless whatever its content, and
 * answered by buttons.
 */
import { describe, expect, test } from "vitest";
import { AttentionReason, QuestionOptionKind, ToolStatus } from "#gen/pinion/v1/activity_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { GrantPermission } from "#gen/pinion/v1/fleet_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { browserPath, findBarriers, patient, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { richCompletion } from "../../support/rich-completion.ts";
import { inNewOrg, useReplica } from "../../support/server.ts";

const hostile = [
  "# Two findings",
  "",
  "The **parser** accepts `;` where it should not, see [the line](https://example.org/parser#L10).",
  "",
  "| file | lines |",
  "|---|---|",
  "| parser.ts | 12 |",
  "",
  "<script>document.title = 'taken over'</script>",
  '<img src="https://example.org/beacon.png" alt="a chart" onerror="document.title = \'taken over\'">',
  "",
  "![a chart](https://example.org/beacon.png)",
  "[click me](javascript:document.title='taken%20over')",
  '<form action="https://example.org"><input name="token"></form>',
  '<a href="https://example.org" style="position:fixed;inset:0">everything</a>',
].join("\n");

describe.skipIf(!browserPath)("an agent's run on the page", () => {
  const replicaOfFile = useReplica(useDatabase({ per: "file" }), patient);
  const browser = useBrowser();

  async function start() {
    const replica = await inNewOrg(replicaOfFile());
    const identity = await enrolDevice(replica.clients, "mac-7");
    const device = await connect(replica.url, identity);
    const { watcher } = await replica.clients.watchers.createWatcher({
      spec: { name: "Digest", prompt: "sum it up", deviceId: identity.deviceId, agentKind: "claude-code" },
    });
    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    const assignment = await device.next("assignment");
    device.accept(assignment);
    const { workId, attemptToken } = assignment;
    return { replica, device, name: { workId, attemptToken }, run: run! };
  }

  test("the answer comes first, as Markdown that can do nothing; then its data, and what the agent did", async () => {
    const { replica, device, name, run } = await start();
    const printed = '\u001b[31m{"type":"result"}\u001b[0m 10%\r100%';
    const value = richCompletion(name, { output: printed, resultText: hostile });
    device.send({ case: "complete", value });
    await device.next("completionAck");
    const page = await browser.signIn(replica, `#/runs/${run.id}`);
    const answer = page.getByRole("region", { name: "Answer" });
    await answer.getByRole("heading", { name: "Two findings" }).waitFor();
    expect(await answer.getByRole("cell", { name: "parser.ts" }).count()).toBe(1);
    expect(await answer.locator("script, img, form, input, [style], [onerror]").count()).toBe(0);
    await answer.getByText("[image: a chart]").waitFor();
    expect(await answer.locator('a[href^="javascript"]').count()).toBe(0);
    expect(await answer.getByRole("link", { name: "the line" }).getAttribute("rel")).toContain("noopener");
    await answer.getByText("click me").click();
    expect(await page.title()).not.toContain("taken over");

    const data = page.getByRole("region", { name: "Data" });
    await data.getByRole("columnheader", { name: "lines" }).waitFor();
    await page.getByText("a tool was not permitted").waitFor();
    await page.getByText("1,200 tokens in, 80 out, $0.0042 by the agent's own figure").waitFor();
    const steps = page.getByRole("region", { name: "What the agent did" });
    await steps.getByText("Read parser.ts").click();
    await steps.getByText("line 10").waitFor();
    await page.getByRole("button", { name: "Show what it printed" }).click();
    const output = page.getByRole("log", { name: "Output of the program" });
    expect(await output.textContent()).toBe('{"type":"result"} 10%\n100%');
    expect(await output.locator(".ansi-red-fg").count()).toBe(1);

    expect(await findBarriers(page)).toEqual([]);
  });

  test.each([
    ["dark, on a laptop", { scheme: "dark", width: 1280 }],
    ["light, on a phone", { scheme: "light", width: 390 }],
    ["dark, on a phone", { scheme: "dark", width: 390 }],
  ] as const)(
    "a run of codex is read %s: nothing is cut off at the side, and everything can be made out",
    async (_, look) => {
      const { replica, device, name, run } = await start();
      const command = `bash -lc 'npm run check -- --reporter=dot ${"x".repeat(120)}'`;
      const call = {
        id: "c1",
        name: "exec_command",
        title: command,
        status: ToolStatus.COMPLETED,
        result: "42 passed",
      };
      device.send({
        case: "complete",
        value: {
          ...{
            ...name,
            outcome: Outcome.COMPLETED,
            output: `{"type":"item.completed","item":"${"y".repeat(400)}"}`,
          },
          resultText: `All **42** checks pass. See \`${"path/".repeat(30)}file.ts\`.\n\n| check | took |\n|---|---|\n| unit | 3 s |`,
          structured: JSON.stringify({ passed: 42, longest: "z".repeat(200) }),
          ...{
            usage: { inputTokens: 9_000n, outputTokens: 120n },
            modelUsed: "scripted-1",
            executor: { kind: "codex", type: "codex" },
          },
          attention: [AttentionReason.NOT_ENFORCED],
          transcript: {
            entries: [
              { sequence: 1n, body: { case: "text", value: { text: "I run the checks." } } },
              { sequence: 2n, body: { case: "toolCall", value: call } },
            ],
          },
        },
      });
      await device.next("completionAck");
      const page = await browser.signIn(replica, `#/runs/${run.id}`, { ...look, height: 900 });
      await page.getByRole("region", { name: "Answer" }).getByText("checks pass").waitFor();
      const overflow = await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth",
      );
      expect(overflow).toBe(0);
      expect(await findBarriers(page)).toEqual([]);
      const directory = process.env.PINION_SCREENSHOTS;
      if (directory)
        await page.screenshot({ path: `${directory}/run-${look.scheme}-${look.width}.png`, fullPage: true });
    },
  );

  test("a person who is no admin cannot press what permits for good", { timeout: 60_000 }, async () => {
    const { replica, device, name, run } = await start();
    const { secret, member } = await replica.clients.orgs.addMember({
      ...{ email: "bea@example.org", role: MemberRole.MEMBER, tokenScopes: ["read", "write"] },
    });
    await replica.clients.fleet.grantDevice({
      deviceId: run.deviceId,
      grantee: { kind: { case: "userId", value: member!.userId } },
      permissions: [GrantPermission.USE, GrantPermission.READ],
    });
    const options = [
      { id: "yes", label: "Yes", kind: QuestionOptionKind.ALLOW_ONCE },
      { id: "always", label: "Always", kind: QuestionOptionKind.ALLOW_ALWAYS },
    ];
    const question = { id: "q1", title: "May I push?", options, toolRule: "Bash(git push)" };
    device.send({ case: "question", value: { ...name, question } });
    const page = await browser.signIn({ url: replica.url, token: secret }, `#/runs/${run.id}`);
    const asked = page.getByRole("region", { name: "A question of the agent" });
    const always = asked.getByRole("button", { name: "Always" });
    await always.waitFor();
    expect(await always.isDisabled()).toBe(true);
    expect(await always.getAttribute("title")).toContain("for admins of the org");
    await asked.getByRole("button", { name: "Yes" }).click();
    expect(await device.next("answer")).toMatchObject({ questionId: "q1", optionId: "yes" });
    const owners = await browser.signIn(replica, `#/runs/${run.id}`);
    device.send({ case: "question", value: { ...name, question: { ...question, id: "q2" } } });
    const theirs = owners.getByRole("region", { name: "A question of the agent" });
    await theirs.getByRole("button", { name: "Always" }).click();
    let told = await device.next("answer");
    // The first answer may be repeated.
    while (told.questionId === "q1") told = await device.next("answer");
    expect(told).toMatchObject({ questionId: "q2", optionId: "always" });
    // The edit of the agent follows the answer.
    await expect
      .poll(async () => {
        const { agent } = await replica.clients.agents.getAgent({ agentId: run.agentId });
        return agent!.settings!.preApprovedTools;
      })
      .toContain("Bash(git push)");
  });

  test("a question has a button for each answer, and goes when it is answered", async () => {
    const { replica, device, name, run } = await start();
    const page = await browser.signIn(replica, `#/runs/${run.id}`);
    const call = (status: ToolStatus) => ({
      sequence: 1n,
      body: { case: "toolCall" as const, value: { id: "t1", name: "Bash", title: "git push", status } },
    });
    await page.getByText("Nothing written yet.").waitFor();
    device.send({ case: "activity", value: { ...name, activities: [call(ToolStatus.PENDING)] } });
    device.send({
      case: "question",
      value: {
        ...name,
        question: {
          id: "q1",
          title: "May I push?",
          options: [
            { id: "yes", label: "Yes", kind: QuestionOptionKind.ALLOW_ONCE },
            { id: "no", label: "No", kind: QuestionOptionKind.DENY_ONCE },
          ],
        },
      },
    });
    const question = page.getByRole("region", { name: "A question of the agent" });
    await question.getByRole("heading", { name: "May I push?" }).waitFor();
    await page.getByRole("region", { name: "What the agent did" }).getByText("git push").waitFor();
    expect(await findBarriers(page)).toEqual([]);
    await question.getByRole("button", { name: "Yes" }).click();
    expect(await device.next("answer")).toMatchObject({ questionId: "q1", optionId: "yes" });
    await question.waitFor({ state: "detached" });
  });

  test("a follow-up shows what its agent asks, takes the answer, and shows the reply", async () => {
    const { replica, device, name, run } = await start();
    device.send({
      case: "complete",
      value: { ...name, outcome: Outcome.COMPLETED, resultText: "It rains.", sessionId: "s-1" },
    });
    await device.next("completionAck");
    const page = await browser.signIn(replica, `#/runs/${run.id}`);
    const chat = page.getByRole("region", { name: "Follow up" });
    await chat.getByRole("textbox").fill("Why?");
    await chat.getByRole("button", { name: "Send" }).click();
    const turn = await device.next("assignment");
    device.accept(turn);
    const { workId, attemptToken } = turn;
    await chat.getByText("The agent works…").waitFor();
    const options = [{ id: "yes", label: "Yes", kind: QuestionOptionKind.ALLOW_ONCE }];
    device.send({
      case: "question",
      value: { workId, attemptToken, question: { id: "q1", title: "May I look outside?", options } },
    });
    await chat.getByRole("heading", { name: "May I look outside?" }).waitFor();
    expect(await findBarriers(page)).toEqual([]);
    await chat.getByRole("button", { name: "Yes" }).click();
    expect(await device.next("answer")).toMatchObject({ questionId: "q1", optionId: "yes" });
    const resultText = "There is a **cloud**.";
    device.send({
      case: "complete",
      value: { workId, attemptToken, outcome: Outcome.COMPLETED, resultText },
    });
    await chat.locator("strong", { hasText: "cloud" }).waitFor();
    expect(await chat.getByText("The agent works…").count()).toBe(0);
  });
});
