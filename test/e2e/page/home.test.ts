/**
 * The first view, and the pages of a watcher and a device: viewed in a real browser, with data of
 * real runs.
 */
import { mkdirSync } from "node:fs";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { browserPath, findBarriers, patient, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";

/** The directory for pictures; without the variable, no pictures are made. */
const picturesDir = process.env.PINION_PICTURES;

describe.skipIf(!browserPath)("home, a watcher, a device", () => {
  const database = useDatabase({ per: "file" });
  const browser = useBrowser();
  let replica: TestReplica;
  let deviceId: string;

  beforeAll(async () => {
    replica = await openTestReplica(database.url, patient);
  });
  afterAll(() => replica.stop());

  let seeding: Promise<void> | undefined;
  /** Once for all tests, in the first test: a device's stream ends with its test. */
  const seeded = () => {
    seeding ??= seed();
    return seeding;
  };

  async function seed(): Promise<void> {
    const { watchers } = replica.clients;
    const identity = await enrolDevice(replica.clients, "lab-box");
    deviceId = identity.deviceId;
    const device = await connect(replica.url, identity, { maxConcurrency: 3 });
    const gone = await enrolDevice(replica.clients, "closed-laptop");
    const make = async (name: string, on = deviceId) =>
      (
        await watchers.createWatcher({
          spec: {
            name,
            prompt: `Look at ${name}.`,
            deviceId: on,
            schedule: "0 9 * * *",
            timeZone: "Europe/Berlin",
          },
        })
      ).watcher!;
    const run = async (watcherId: string, text: string, outcome = Outcome.COMPLETED, reason = "") => {
      await watchers.triggerWatcher({ watcherId });
      const assignment = await device.next("assignment");
      device.accept(assignment);
      await device.complete(assignment, text, outcome, reason);
    };
    const digest = await make("Digest");
    await run(digest.id, "three pull requests\ntwo issues");
    await watchers.updateWatcher({
      watcherId: digest.id,
      spec: { prompt: "Look at Digest, in two lines." },
      updateMask: { paths: ["prompt"] },
    });
    await run(digest.id, "four pull requests\ntwo issues\nno build failed");
    const build = await make("Build");
    await run(build.id, "", Outcome.FAILED, "3 of 214 tests failed");
    const paused = await make("Paused");
    await watchers.pauseWatcher({ watcherId: paused.id, reason: "until the lab is open again" });
    await make("Waits", gone.deviceId);
  }

  async function picture(page: Page, name: string): Promise<void> {
    if (!picturesDir) return;
    mkdirSync(picturesDir, { recursive: true });
    await page.screenshot({ path: `${picturesDir}/${name}.png`, fullPage: true });
  }

  test("home says what needs somebody, how runs ended, and what comes next; each leads to its place", async () => {
    await seeded();
    const page = await browser.signIn(replica, "");
    const needs = page.getByRole("region", { name: "What needs somebody" });
    await needs.getByText("Build").waitFor();
    await needs.getByText("until the lab is open again").waitFor();
    const over = page.getByRole("region", { name: "Runs over time" });
    await over.getByText(/completed 2/).waitFor();
    await over.getByText(/failed 1/).waitFor();
    // Screen readers get the chart as a table.
    expect(await over.getByRole("table", { name: "Runs by how they ended" }).count()).toBe(1);
    await over.getByRole("link", { name: "lab-box" }).waitFor();
    await over.getByRole("button", { name: "30 days" }).click();
    await page.waitForURL("**/#/home?range=month");
    await page.getByRole("region", { name: "Next slots" }).getByText("Digest").first().waitFor();
    await picture(page, "home-1280");
    await needs.getByRole("link", { name: /Paused/ }).click();
    await page.waitForURL("**/#/watchers/paused");
  });

  test("a watcher's page has its latest result, any two compared, its prompt in each version, and its slots", async () => {
    await seeded();
    const page = await browser.signIn(replica, "#/watchers/digest");
    const result = page.getByRole("region", { name: "Result", exact: true });
    await result.getByText("four pull requests").waitFor();
    await page.getByRole("button", { name: /^Compare with/ }).click();
    await result.getByText("removed: three pull requests").waitFor();
    await result.getByText("added: no build failed").waitFor();
    await page.waitForURL(/before=[0-9a-f-]{36}/);
    const prompt = page.getByRole("region", { name: "Prompt", exact: true });
    await prompt.getByText("Look at Digest, in two lines.").waitFor();
    await prompt.getByRole("button", { name: "version 2" }).click();
    await prompt.getByText("removed: Look at Digest.").waitFor();
    const slots = page.getByRole("region", { name: "Slots" });
    await slots
      .getByRole("link", { name: /completed/ })
      .first()
      .waitFor();
    expect(await slots.getByRole("img", { name: /to come/ }).count()).toBeGreaterThan(5);
    await picture(page, "watcher-1280");
  });

  test("a device's page has what runs, what it may run, and who may use it; a grant is given and taken back", async () => {
    await seeded();
    const { member } = await replica.clients.orgs.addMember({
      email: "bea@example.org",
      name: "Bea",
      role: 3,
    });
    const page = await browser.signIn(replica, `#/fleet/${deviceId}`);
    await page.getByRole("region", { name: "Ended" }).getByText("3 of 214 tests failed").waitFor();
    const grants = page.getByRole("region", { name: "Who may use it" });
    await grants.getByRole("button", { name: "Grant" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("combobox").selectOption(member!.userId);
    await dialog.getByLabel(/^read/).check();
    await dialog.getByRole("button", { name: "Grant" }).click();
    await grants.getByText(/Bea may use it/).waitFor();
    await picture(page, "device-1280");
    await grants.getByRole("button", { name: /Take back: Bea may read/ }).click();
    await expect.poll(() => grants.getByText(/Bea may read/).count()).toBe(0);
    const left = (await replica.clients.fleet.listGrants({ deviceId })).grants;
    expect(left.map(({ granteeName }) => granteeName)).toEqual(["Bea"]);
  });

  for (const scheme of ["light", "dark"] as const) {
    test(`nobody is shut out and nothing is wider than a phone, in ${scheme} colours`, async () => {
      await seeded();
      const places: [name: string, place: string, until: string][] = [
        ["home", "#/home", ".needs li"],
        ["watcher", "#/watchers/digest", ".calendar .cell"],
        ["device", `#/fleet/${deviceId}`, ".plain-table td"],
        ["watchers", "#/watchers", ".watchers [data-index]"],
        ["you", "#/you", ".plain-table td"],
      ];
      const found: Record<string, unknown> = {};
      const page = await browser.signIn(replica, "#/you", { scheme, width: 390, height: 800 });
      for (const [name, place, until] of places) {
        await page.evaluate(`location.hash = ${JSON.stringify(place)}`);
        await page.locator(until).first().waitFor();
        const barriers = await findBarriers(page);
        const width = Number(await page.evaluate("document.documentElement.scrollWidth"));
        if (barriers.length > 0 || width > 390) found[name] = [width, ...barriers];
        await picture(page, `${name}-390-${scheme}`);
        if (!picturesDir) continue;
        await page.setViewportSize({ width: 1180, height: 800 });
        await picture(page, `${name}-1180-${scheme}`);
        await page.setViewportSize({ width: 390, height: 800 });
      }
      expect(found).toEqual({});
    });
  }
});
