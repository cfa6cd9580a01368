# Every target is one command of dev.py, which also runs without make.
.PHONY: setup test check demo bench growth slots many mutants previous docs build lock fix clean help
.DEFAULT_GOAL := help

setup: ## make .venv with everything (the other targets do it when they need it)
	@python3 dev.py setup

test: ## run the suite on real PostgreSQL, Valkey and RabbitMQ; ARGS="-k lease" goes to pytest
	@python3 dev.py test $(ARGS)

check: ## ruff, mypy --strict, import-linter
	@python3 dev.py check

demo: ## reviews of real commits under faults, about a minute; REPO=path for another repository
	@python3 dev.py demo $(ARGS)

bench: ## rounds of runclaim, bare Celery and others in turn, some minutes; ARGS="--rounds 5 --write" renews the page
	@python3 dev.py bench $(ARGS)

growth: ## the ledger's verbs on 10 thousand, 1 million and 5 million finished runs; ARGS="--rows 10000,100000" for less
	@python3 dev.py growth $(ARGS)

slots: ## pools of one to eight processes, one worker and two, about six minutes; ARGS="--rounds 1 --scale 0.3" for less
	@python3 dev.py slots $(ARGS)

many: ## connections, pages, groups, ledgers, beats and keepers, about ten minutes; ARGS="--parts groups,keepers" for less
	@python3 dev.py many $(ARGS)

mutants: ## changes that no test notices, a sample of 100; ARGS="--files runclaim/ledger/claim.py" for all of a file
	@python3 dev.py mutants $(ARGS)

previous: ## the previous release's acceptance tests on today's tables, and a fleet of both releases under kills
	@python3 dev.py previous $(ARGS)

docs: ## build the documentation into build/site, and renew what is made from it
	@python3 dev.py docs

build: ## the packages in dist/, checked, with their bill of materials; the README's module on the wheel alone
	@python3 dev.py build

lock: ## renew locks/ and docs/licences.md after a change of constraints.txt or of the dependencies
	@python3 dev.py lock

fix: ## let ruff fix and format the code
	@python3 dev.py fix

clean: ## remove .venv and every cache of this folder
	@python3 dev.py clean

help: ## this list
	@sed -n 's/^\([a-z]*\): ## /  make \1	/p' $(MAKEFILE_LIST)
