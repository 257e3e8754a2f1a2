/** What a line of a platform tells, on any replica. */
import type { Doorbell } from "../../scheduler/doorbell.ts";
import type { QuestionBell } from "../../scheduler/questions.ts";
import type { Quotas } from "../../store/people/orgs/quotas.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Logger } from "../../telemetry/log.ts";
import { refusalOf, take } from "./incoming.ts";
import type { Ear } from "./lines/line.ts";
import type { News } from "./news.ts";
import { press } from "./questions.ts";
import { mask } from "./secrets.ts";
import type { StartablePlatform } from "./starter.ts";

export function createEar(deps: {
  db: Db;
  log: Logger;
  quotas: Quotas;
  bell: Pick<Doorbell, "turnStarted"> & QuestionBell;
  platform: StartablePlatform;
  news: News;
  /** A reply is owed from now on. */
  onOwed(): void;
}): Ear {
  const { platform, news, log } = deps;
  const named = { orgId: platform.orgId, platform: platform.stableId };
  const trouble = (what: string) => news.trouble(platform, mask(what, platform.secrets));
  return {
    async heard(message) {
      try {
        const taken = await take(deps, platform, message);
        if (typeof taken === "object") {
          log.debug({ ...named, reason: taken.refused }, "a message to a platform was not let through");
          return trouble(taken.refused);
        }
        news.heard(platform);
        if (taken === "new") deps.onOwed();
      } catch (error) {
        log.warn({ ...named, err: error }, "a message to a platform could not be taken in");
        trouble(error instanceof Error ? error.message : String(error));
        throw error;
      }
    },
    async pressed(button) {
      try {
        const refused =
          refusalOf(platform, { ...button, senderName: "someone" }) ?? (await press(deps, platform, button));
        if (refused !== undefined) trouble(refused);
        else news.heard(platform);
      } catch (error) {
        log.warn({ ...named, err: error }, "a pressed button could not be taken in");
        throw error;
      }
    },
    trouble,
  };
}
