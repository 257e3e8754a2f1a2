import { describe, expect, test } from "vitest";
import { QuestionDefault, QuestionResponders } from "#gen/pinion/v1/activity_pb.js";
import { OverlapPolicy, WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { browserPath, patient, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { inNewOrg, useReplica } from "../../support/server.ts";

describe.skipIf(!browserPath)("watchers", () => {
  const replicaOfFile = useReplica(useDatabase({ per: "file" }), patient);
  const browser = useBrowser();

  test("one is created, edited, paused, resumed and triggered", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const { watchers } = replica.clients;
    const identity = await enrolDevice(replica.clients, "mac-7");
    const device = await connect(replica.url, identity);
    for (const watcher of (await watchers.listWatchers({})).watchers) {
      await watchers.deleteWatcher({ watcherId: watcher.id });
    }
    const page = await browser.signIn(replica, "#/watchers", {
      timeZone: "America/New_York",
      expected: /status of 400/,
    });
    await page.getByRole("button", { name: "Create a watcher" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name", { exact: true }).fill("Morning digest");
    await dialog.getByLabel("Prompt").fill("Sum it up.");
    await dialog.getByLabel("Device").selectOption(identity.deviceId);
    await dialog.getByLabel("Schedule", { exact: true }).fill("0 25 * * *");
    await dialog.getByText(/hour/i).first().waitFor();
    await dialog.getByRole("button", { name: "Create", exact: true }).click();
    // The server's refusal is shown beside the rejected input, and no input is lost.
    await dialog.getByRole("alert").waitFor();
    await dialog.getByLabel("Schedule", { exact: true }).fill("0 9 * * 1-5");
    await dialog.getByLabel("Time zone").fill("Europe/Berlin");
    await dialog.getByText("At 09:00, Monday through Friday").waitFor();
    await dialog.getByText("Europe/Berlin").nth(2).waitFor();
    await dialog.getByRole("button", { name: "Create", exact: true }).click();
    await dialog.waitFor({ state: "detached" });

    const row = page.getByRole("row", { name: /Morning digest/ });
    await row.getByText("At 09:00, Monday through Friday").waitFor();
    await row.getByText("on mac-7").waitFor();
    // 9:00 in Berlin is 3:00 in New York, but for some weeks in spring and autumn.
    await expect.poll(() => row.locator("li").allTextContents()).toHaveLength(3);
    expect(await row.locator("li").allTextContents()).toEqual(
      Array.from({ length: 3 }, () => expect.stringMatching(/0[34]:00 .*09:00 Berlin/)),
    );
    const watcher = (await watchers.getWatcher({ watcherId: "morning-digest" })).watcher!;
    expect(watcher.spec).toMatchObject({ deviceId: identity.deviceId, timeZone: "Europe/Berlin" });

    await row.getByRole("button", { name: "Edit" }).click();
    await dialog.getByLabel("Prompt").fill("Sum it up in three lines.");
    await dialog.getByText("Limits and policies").click();
    await dialog.getByLabel("Timeout", { exact: true }).fill("soon");
    await dialog.getByRole("button", { name: "Save" }).click();
    await dialog.getByText(/“soon” is no length of time/).waitFor();
    await dialog.getByLabel("Timeout", { exact: true }).fill("1h30m");
    await dialog.getByLabel("While one is active").selectOption("queue the latest");
    await dialog.getByRole("button", { name: "Save" }).click();
    await dialog.waitFor({ state: "detached" });
    const edited = (await watchers.getWatcher({ watcherId: "morning-digest" })).watcher!;
    expect(edited.spec).toMatchObject({
      prompt: "Sum it up in three lines.",
      overlap: OverlapPolicy.QUEUE_ONE,
      timeout: { seconds: 5_400n },
    });
    expect(edited.version).toBe(watcher.version + 1);

    await row.getByRole("button", { name: "Edit" }).click();
    await dialog.getByText("Budgets and questions").click();
    await dialog.getByLabel("Tokens of a run").fill("50,000");
    await dialog.getByLabel("Dollars of a run").fill("much");
    await dialog.getByRole("button", { name: "Save" }).click();
    await dialog.getByText(/“much” is no amount of dollars/).waitFor();
    await dialog.getByLabel("Dollars of a run").fill("0.30");
    await dialog.getByLabel("Dollars of a day").fill("9007199254.740993");
    await dialog.getByLabel("Answer within").fill("1h");
    await dialog.getByLabel("Without an answer").selectOption("allow once");
    await dialog.getByLabel("Who may answer").selectOption("admins of the org");
    await dialog.getByLabel("Timeout stands still for").fill("2h");
    await dialog.getByRole("button", { name: "Save" }).click();
    await dialog.waitFor({ state: "detached" });
    const bounded = (await watchers.getWatcher({ watcherId: "morning-digest" })).watcher!;
    expect(bounded.spec).toMatchObject({
      runBudget: { tokensMax: 50_000n, costMicrosMax: 300_000n },
      dayBudget: { tokensMax: 0n, costMicrosMax: 9_007_199_254_740_993n },
      questions: {
        ...{ timeout: { seconds: 3_600n }, waitMax: { seconds: 7_200n } },
        ...{ defaultAnswer: QuestionDefault.ALLOW, responders: QuestionResponders.ADMINS },
      },
    });
    // What the form shows is what is stored, and an edit of another field leaves it.
    await row.getByRole("button", { name: "Edit" }).click();
    await dialog.getByText("Budgets and questions").click();
    expect(await dialog.getByLabel("Dollars of a day").inputValue()).toBe("9007199254.740993");
    await dialog.getByLabel("Prompt").fill("Sum it up in two lines.");
    await dialog.getByLabel("Dollars of a day").fill("");
    await dialog.getByRole("button", { name: "Save" }).click();
    await dialog.waitFor({ state: "detached" });
    const unbounded = (await watchers.getWatcher({ watcherId: "morning-digest" })).watcher!;
    expect(unbounded.spec!.dayBudget).toBeUndefined();
    expect(unbounded.spec).toMatchObject({ runBudget: { tokensMax: 50_000n } });

    await row.getByRole("button", { name: "Pause" }).click();
    await row.getByText("paused", { exact: true }).waitFor();
    expect((await watchers.getWatcher({ watcherId: watcher.id })).watcher!.status).toBe(WatcherStatus.PAUSED);
    await row.getByRole("button", { name: "Resume" }).click();
    await row.getByText("active", { exact: true }).waitFor();

    await row.getByRole("button", { name: "Trigger" }).click();
    const assignment = await device.next("assignment");
    await page.waitForURL(`**/#/runs/${assignment.workId}`);
    device.accept(assignment);
    await device.complete(assignment);
    await page.getByRole("heading", { name: "morning-digest completed" }).waitFor();
    await page.getByRole("link", { name: /^Watchers/ }).click();
    await row.getByRole("img", { name: /Last 1 run: 1 completed/ }).waitFor();
    await row.getByRole("link", { name: /^completed/ }).waitFor();
  });

  test("an edit of what somebody else has edited meanwhile is refused", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const { watchers } = replica.clients;
    const { watcher } = await watchers.createWatcher({ spec: { name: "Digest", prompt: "sum it up" } });
    const page = await browser.signIn(replica, "#/watchers", { expected: /status of 409/ });
    await page.getByRole("button", { name: "Edit Digest" }).click();
    await watchers.updateWatcher({
      watcherId: watcher!.id,
      spec: { name: "Digest", prompt: "another one" },
      updateMask: { paths: ["prompt"] },
    });
    await page.getByLabel("Prompt").fill("mine");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText(/Somebody else was faster/).waitFor();
    expect((await watchers.getWatcher({ watcherId: watcher!.id })).watcher!.spec!.prompt).toBe("another one");
  });
});
