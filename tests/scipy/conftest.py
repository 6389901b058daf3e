"""The battery of laws shows the values of a failed assertion, as tests do."""

import pytest

pytest.register_assert_rewrite("laws", "compiled_cases")
