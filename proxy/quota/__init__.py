"""What is done about pull quotas while the program runs: the policies are in `proxy.policy.quota`.

events.py    what people want to know of
books.py     what is known of every account, brought to disk and back
traffic.py   what went to whom
governor.py  lets counted pulls through, answers for them or has them wait; queue.py says in which order
probe.py     asks for free when nothing was heard
watch.py     notices what changes by itself
report.py    the documents of /api/quota and /api/top
"""
