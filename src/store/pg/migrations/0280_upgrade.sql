-- JSON of UpgradeInfo from the last hello; null: the daemon did not say.
alter table device add column upgrade jsonb;
