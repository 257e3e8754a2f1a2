-- locks in access exclusive mode: bulk_operation, user
-- locks in share mode: device

-- devices.list: a page in the order of labels, without a look at the runs of every device.
create index device_label on device (org_id, label, id);

-- The numbers of a finished operation's runs: {matched, done, passed_over, failed}. Null: it is running, was stopped, or
-- finished before this column; its items are counted.
alter table bulk_operation add column counts jsonb;

-- The members of the org, by the index of members: their policy alone would have all orgs' members read (0070).
alter policy tenant on "user"
  using (id in (select user_id from member where org_id = (select current_setting('pinion.org', true))));
